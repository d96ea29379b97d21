"""Links that fail: packets lost one way only, and a cable that is pulled and put back again and again.

What must not happen is that who is badly connected disturbs the others: at most one change of leader while packets are
lost one way, none when they come through again, and no election for each flapping of a link (pre-vote, check-quorum:
thesis, 6.2 and 9.6).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.hosts import kernel
from tests.torture import figures
from tests.torture.figures import Figure
from tests.torture.fleet import Fleet
from tests.torture.scenario import Options, Scenario
from tests.torture.watching import Seen, Watch, changes, terms_gained

WHOLE_S: Final = 120.0
"""For all to be connected again and to agree: dials are paused for 5 s at most, the dead looked for every 10 s."""
CALM_S: Final = 5.0
"""So long all is watched after it is whole again: ten election timeouts."""
DOWN_S: Final = (0.2, 4.0)
UP_S: Final = (0.5, 4.0)
"""Between these a flapping link stays down or up, drawn by the seed: shorter and longer than an election timeout, far
shorter than the ten seconds after which a connection is given up."""

Pair = tuple[int, int]
"""Who sends, and who does not hear it."""
WAYS: Final[dict[str, Callable[[int, int, int], list[Pair]]]] = {
    "leader to one": lambda leader, one, other: [(leader, one)],
    "one to leader": lambda leader, one, other: [(one, leader)],
    "leader to both": lambda leader, one, other: [(leader, one), (leader, other)],
    "both to leader": lambda leader, one, other: [(one, leader), (other, leader)],
}
"""Of three hosts."""


class Partition(NamedTuple):
    """What came of one."""

    way: str
    changes: int
    gained: int
    """Terms, while packets were lost."""
    gained_later: int
    """Terms, from the healing on."""
    whole_s: float
    """From the healing until all were connected and agreed."""


@contextmanager
def three_hosts() -> Iterator[Fleet]:
    """A cluster of three, on IPv4 alone: over IPv6 they would find each other whatever is lost."""
    with Fleet(3) as fleet:
        for number in range(3):
            host = fleet.hosts[number]
            kernel.tell("ip", "-n", host.namespace, "addr", "del", f"{host.address_v6}/64", "dev", "eth0")
        fleet.form()
        yield fleet


def whole_after(fleet: Fleet) -> float:
    """How long it takes until all are connected again and agree, in seconds."""
    began = time.monotonic()
    fleet.await_settled(within_s=WHOLE_S)
    return time.monotonic() - began


def partition(
    fleet: Fleet, watch: Watch, way: str, hold: Callable[[int], object], calm_s: float, lots: random.Random
) -> Partition:
    """Lose packets this way as long as ``hold`` takes (it is told who leads), then heal, and see that all is well
    again."""
    leader, _ = fleet.await_leader()
    followers = [number for number in range(3) if number != leader]
    lots.shuffle(followers)
    began = time.monotonic()
    for sender, receiver in WAYS[way](leader, *followers):
        fleet.hosts.block(fleet.hosts[sender], fleet.hosts[receiver])
    hold(leader)
    healed = time.monotonic()
    fleet.hosts.heal()
    whole_s = whole_after(fleet)
    time.sleep(calm_s)
    series = watch.since(began)
    before = [one for one in series if one.at < healed]
    after = [one for one in series if one.at >= healed]
    return Partition(way, changes(series), terms_gained(before), terms_gained(after), whole_s)


def partition_figures(done: list[Partition]) -> list[Figure]:
    """Of the worst of each way."""
    told = []
    for way in dict.fromkeys(one.way for one in done):
        alike = [one for one in done if one.way == way]
        told += [
            Figure(f"{way}: changes of leader", max(one.changes for one in alike), "", 1),
            Figure(f"{way}: terms after healing", max(one.gained_later for one in alike), "", 0),
            figures.seen(f"{way}: terms meanwhile", max(one.gained for one in alike), ""),
            figures.seen(f"{way}: whole again after", max(one.whole_s for one in alike), "s"),
        ]
    return told


def one_way_partition(options: Options) -> list[Figure]:
    """Each way, ``times`` times, held for ``minutes`` each."""
    lots = random.Random(options.seed)
    done = []
    with three_hosts() as fleet, Watch(fleet.status, range(3)) as watch:
        for _ in range(options.times):
            for way in WAYS:
                done.append(partition(fleet, watch, way, lambda _: time.sleep(options.minutes * 60), CALM_S, lots))
                options.tell(f"{done[-1]}")
    return partition_figures(done)


def flap(fleet: Fleet, watch: Watch, host: int, for_s: float, lots: random.Random) -> tuple[list[Seen], int]:
    """Pull a host's cable and put it back for so long, and once more until all is whole. What was said, and how often
    the link went down."""
    began, count = time.monotonic(), 0
    while not count or time.monotonic() < began + for_s:
        fleet.hosts[host].link_down()
        time.sleep(lots.uniform(*DOWN_S))
        fleet.hosts[host].link_up()
        time.sleep(lots.uniform(*UP_S))
        count += 1
    whole_after(fleet)
    return watch.since(began), count


def flap_figures(who: str, series: list[Seen], count: int) -> list[Figure]:
    return [
        Figure(f"{who} flaps: elections", terms_gained(series), "", 2),
        figures.seen(f"{who} flaps: changes of leader", changes(series), ""),
        figures.seen(f"{who} flaps: times", count, ""),
    ]


def flapping_link(options: Options) -> list[Figure]:
    """A follower's, and then the leader's, ``minutes`` each."""
    lots = random.Random(options.seed)
    told = []
    with three_hosts() as fleet, Watch(fleet.status, range(3)) as watch:
        for who in ("a follower", "the leader"):
            leader, _ = fleet.await_leader()
            host = leader if who == "the leader" else lots.choice([number for number in range(3) if number != leader])
            told += flap_figures(who, *flap(fleet, watch, host, options.minutes * 60, lots))
            options.tell(f"{who} flapped: {told[-3].value} elections")
    return told


SCENARIOS = (
    Scenario(
        "one_way_partition", "packets are lost one way only, in four ways: one change of leader at most",
        one_way_partition, times=2, minutes=0.5,
    ),
    Scenario(
        "flapping_link", "a link goes down and up every few seconds: two elections at most",
        flapping_link, times=1, minutes=5,
    ),
)  # fmt: skip
