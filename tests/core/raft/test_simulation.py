"""A thousand runs of a cluster in which everything goes wrong, and what must hold in each."""

from __future__ import annotations

import pytest

from tests.core.raft.simulation import Cluster

BLOCKS = 20
SEEDS = 50
"""In each block."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_must_hold_holds(block: int) -> None:
    led = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        cluster = Cluster(seed)
        try:
            cluster.run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        led += len(cluster.leaders)
    assert led > SEEDS, "elections were held"


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [Cluster(7) for _ in range(2)]
    for cluster in runs:
        cluster.run()
    assert runs[0].trace == runs[1].trace
    assert len(runs[0].trace) > 50
