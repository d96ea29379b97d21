"""One seed, from its beginning to its end."""

from __future__ import annotations

from typing import Final

from tests.core.raft.settling import look_at_the_quiet, settle
from tests.core.raft.simulation import Cluster
from tests.core.raft.terms import ShortTerms
from tests.core.raft.weather import Stretch

STRETCHES: Final = 4
STEPS: Final = 300
TERMS: Final = 12


def run(seed: int, count: int | None = None) -> Cluster:
    """See ``play``; with so many nodes, or a number by lot."""
    cluster = Cluster(seed, count)
    play(cluster)
    return cluster


def play(cluster: Cluster) -> None:
    """Weather and short terms take turns by lot, and all is well again at the end. Raises Broken, or whatever a rule
    itself finds impossible."""
    for _ in range(STRETCHES):
        if cluster.random.random() < 0.5:
            Stretch(cluster).run(STEPS)
        else:
            ShortTerms(cluster).run(TERMS)
        cluster.properties.look_at_logs([node.raft for node in cluster.nodes.values()])
    if settle(cluster):
        look_at_the_quiet(cluster)
