"""Hosts that come and go: they join, leave, are sent away or lose power, and the dead come back, as they were or anew.

After each step all that live must agree on who belongs to the cluster and who votes: one of up to two members, three of
up to six, five of seven and more, nobody dead among them while enough live. What a daemon needs must not grow by it:
two members that never go are measured when a quarter is over and at the end, in clusters of the same size.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from abi.errors import DaemonUnreachable
from tests.torture.figures import Figure, percentile, seen
from tests.torture.fleet import Fleet, wanted_voters
from tests.torture.scenario import Options, Scenario

HOSTS: Final = 20
RIGHT_S: Final = 120.0
"""Until all is right after a step. A death is certain after 10 to 14 s; then the voters change."""
CALM_S: Final = 20.0
"""Before what daemons need is measured: sockets of connections that ended are gone by then."""
ELDERS: Final = (1, 2)
"""They never go. The founder does, sooner or later."""
MEASURED_AT: Final = 8
"""Members, when what daemons need is measured: some learn."""
RSS_GROWS_MAX: Final = 1.1
RSS_GROWS_BYTES_MAX: Final = 2 << 20
POLL_S: Final = 0.05


def why_not_right(told: Mapping[str, Mapping[str, Any]], alive: set[str], dead: set[str]) -> str:
    """What the living (by node) say, against what is so. Empty: it is right."""
    first = told[min(told)]
    for node, said in told.items():
        if not said["joined"] or said["leader"] is None:
            return f"{node} is in no cluster, or knows no leader"
        if (said["leader"], said["term"], said["voters"]) != (first["leader"], first["term"], first["voters"]):
            return f"{node} and {min(told)} do not say the same of leader, term and voters"
        states = {other["id"]: other["state"] for other in said["nodes"]}
        if states != dict.fromkeys(alive, "alive") | dict.fromkeys(dead, "dead"):
            return f"{node} says {states}, where {sorted(alive)} live and {sorted(dead)} are dead"
    return why_wrong_voters(set(first["voters"]), alive, dead)


def why_wrong_voters(voters: set[str], alive: set[str], dead: set[str]) -> str:
    """Where fewer live than should vote, all of them do, and the places of the others are theirs to keep."""
    wanted = wanted_voters(len(alive) + len(dead))
    if not voters <= alive | dead:
        return f"{sorted(voters - alive - dead)} vote and are no members"
    if len(alive) < wanted:
        return "" if alive <= voters and len(voters) <= wanted else f"of {sorted(alive)} only {sorted(voters)} vote"
    if voters & dead:
        return f"{sorted(voters & dead)} vote and are dead"
    return "" if len(voters) == wanted else f"{len(voters)} vote, not {wanted}"


class Need(NamedTuple):
    """Of one daemon."""

    pid: int
    rss: int
    descriptors: int

    def grown(self, before: Need) -> int:
        """Bytes beyond what it may have grown by."""
        return self.rss - round(before.rss * RSS_GROWS_MAX) - RSS_GROWS_BYTES_MAX


class Town:
    """Who is where. Each host is alive (a member), dead (a member without power), or out (no member, its daemon up)."""

    def __init__(self, fleet: Fleet, lots: random.Random, tell: Callable[[str], None], alive: set[int]) -> None:
        self.fleet, self.lots, self.tell = fleet, lots, tell
        self.alive, self.dead = set(alive), set[int]()
        self.out = set(range(len(fleet))) - alive
        self.took_s: list[float] = []
        """Until all was right, after each step."""
        self.counts: dict[str, int] = {}
        self.why = ""

    @staticmethod
    def founded(fleet: Fleet, lots: random.Random, tell: Callable[[str], None]) -> Town:
        """By the first of the fleet; the elders join."""
        fleet.ask(0, "cluster-init")
        town = Town(fleet, lots, tell, {0})
        for elder in ELDERS:
            town.do("join", elder)
        return town

    def do(self, what: str, host: int) -> None:
        """Have it done, and wait until all is right."""
        began = time.monotonic()
        self._steps[what](self, host)
        self.counts[what] = self.counts.get(what, 0) + 1
        while not self.is_right():
            assert time.monotonic() - began < RIGHT_S, f"{what} {host}, and after {RIGHT_S:.0f} s: {self.why}"
            time.sleep(POLL_S)
        self.took_s.append(time.monotonic() - began)
        members = f"{len(self.alive)} alive, {len(self.dead)} dead"
        self.tell(f"{what} {host}: right after {self.took_s[-1]:.1f} s; {members}")

    def is_right(self) -> bool:
        """``why`` says what is not."""
        nodes = self.fleet.nodes
        try:
            told = {nodes[number]: self.fleet.status(number) for number in self.alive}
            strangers = [number for number in self.out if self.fleet.status(number)["joined"]]
        except DaemonUnreachable as error:
            self.why = error.message
            return False
        alive, dead = ({nodes[number] for number in numbers} for numbers in (self.alive, self.dead))
        self.why = f"{strangers} do not know that they are out" if strangers else why_not_right(told, alive, dead)
        return not self.why

    # The steps.

    def _join(self, host: int) -> None:
        through = self.lots.choice(sorted(self.alive))
        token = self.fleet.ask(through, "cluster-token")["token"]
        self.fleet.ask(host, "cluster-join", token=token)
        self.out.discard(host)
        self.alive.add(host)

    def _leave(self, host: int) -> None:
        self.fleet.ask(host, "cluster-leave")
        self.alive.discard(host)
        self.out.add(host)

    def _send_away(self, host: int) -> None:
        """It has power, and is to come back as somebody else."""
        self._remove(host)
        self.fleet.kill(host)
        self._be_born(host)

    def _remove(self, host: int) -> None:
        by = self.lots.choice(sorted(self.alive - {host}))
        self.fleet.ask(by, "network-remove", target=self.fleet.nodes[host])
        self.alive.discard(host)
        self.dead.discard(host)

    def _die(self, host: int) -> None:
        self.fleet.power_off(host)
        self.alive.discard(host)
        self.dead.add(host)

    def _come_back(self, host: int) -> None:
        self.fleet.restart(host)
        self.dead.discard(host)
        self.alive.add(host)

    def _be_born(self, host: int) -> None:
        """With nothing on its disk."""
        folder = self.fleet.daemons[host].state_dir
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        self.fleet.restart(host)
        self.fleet.nodes[host] = str(self.fleet.status(host)["node"])
        self.out.add(host)

    def _bury(self, host: int) -> None:
        """The dead are sent away, and come back as somebody else."""
        self._remove(host)
        self._be_born(host)

    _steps: Final[Mapping[str, Callable[[Town, int], None]]] = {
        "join": _join, "leave": _leave, "send away": _send_away, "die": _die, "come back": _come_back, "bury": _bury,
    }  # fmt: skip

    def may(self) -> dict[str, list[int]]:
        """What can be done now, and to whom. The living must be able to go on without whoever goes; nobody is sent away
        while those that are left would need the dead."""
        goers = sorted(self.alive - set(ELDERS))
        some = len(self.alive) > 3
        found = {
            "join": sorted(self.out),
            "leave": goers if some or not self.dead else [],
            "send away": goers if some or not self.dead else [],
            "die": goers if some and len(self.dead) < len(self.alive) - 2 else [],
            "come back": sorted(self.dead),
            "bury": sorted(self.dead),
        }
        return {what: hosts for what, hosts in found.items() if hosts}

    def step(self) -> None:
        """One that can be done, by lot; newcomers as often as those who go."""
        may = self.may()
        weights = [3 if what == "join" else 1 for what in may]
        (what,) = self.lots.choices(list(may), weights)
        self.do(what, self.lots.choice(may[what]))

    def needs(self, size: int, calm_s: float) -> dict[int, Need]:
        """Of the elders, in a cluster of so many, all alive."""
        while self.dead:
            self.do("come back", min(self.dead))
        while len(self.alive) > size:
            self.do("leave", max(self.alive - set(ELDERS)))
        while len(self.alive) < size:
            self.do("join", min(self.out))
        time.sleep(calm_s)
        fleet = self.fleet
        found = {n: Need(fleet.daemons[n].pid, fleet.rss(n), fleet.descriptors(n)) for n in ELDERS}
        self.tell(f"{found}")
        return found


def flat(before: Mapping[int, Need], after: Mapping[int, Need]) -> list[Figure]:
    """Whether what daemons need is what it was."""
    assert all(after[n].pid == before[n].pid for n in before), "an elder is another process now"
    return [
        Figure("memory beyond 10 % and 2 MB more", max(after[n].grown(before[n]) for n in before) / 1e6, "MB", 0),
        Figure("descriptors more", max(after[n].descriptors - before[n].descriptors for n in before), "", 0),
        seen("memory after a quarter", max(one.rss for one in before.values()) / 1e6, "MB"),
        seen("memory at the end", max(one.rss for one in after.values()) / 1e6, "MB"),
        seen("descriptors at the end", max(one.descriptors for one in after.values()), ""),
    ]


def churned(town: Town, steps: int, every_s: float, size: int, calm_s: float) -> list[Figure]:
    """So many steps, one in so many seconds, or as fast as all is right again."""
    before: dict[int, Need] = {}
    for number in range(steps):
        if number == steps // 4:
            before = town.needs(size, calm_s)
        began = time.monotonic()
        town.step()
        time.sleep(max(0.0, began + every_s - time.monotonic()))
    return [*flat(before, town.needs(size, calm_s)), *_seen(town.took_s, town.counts)]


def _seen(took_s: Sequence[float], counts: Mapping[str, int]) -> list[Figure]:
    return [
        seen("until all was right: half of the steps", percentile(took_s, 50), "s"),
        seen("until all was right: the longest", max(took_s), "s"),
        *(seen(f"steps: {what}", count, "") for what, count in sorted(counts.items())),
    ]


def churn(options: Options) -> list[Figure]:
    """``times`` steps a minute, for ``minutes``."""
    steps = max(4, round(options.times * options.minutes))
    with Fleet(HOSTS) as fleet:
        town = Town.founded(fleet, random.Random(options.seed), options.tell)
        return churned(town, steps, 60 / options.times, MEASURED_AT, CALM_S)


SCENARIOS = (
    Scenario("churn", "20 hosts join, leave and die: voters always right, daemons need no more", churn, minutes=60),
)
