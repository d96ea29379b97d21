"""A machine that is busy, a clock that is wrong, and nothing to do at all.

None of these may look like a death. Overload is told from a death by who was late himself (Lifeguard; here measured
directly: `abid.core.membership`); the wall clock decides nothing but when certificates and tokens end.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from abi.errors import AbiError
from tests.system.harness import eventually
from tests.torture.beacons import Recorder, deaths
from tests.torture.clocks import BEFORE, WallClock
from tests.torture.figures import Figure, seen
from tests.torture.fleet import Fleet
from tests.torture.scenario import Options, Scenario
from tests.torture.watching import Watch, changes, said_of, terms_gained

BURNERS_PER_CORE: Final = 4
SETTLE_S: Final = 10.0
"""After the last event of a cluster, until nothing of it is left to be done: keys handed out, states asked for."""
HOUR_S: Final = 3600.0
BRIEF_S: Final = 1800.0
"""Of a token: over when an hour has passed."""
SPARE: Final = 3
"""The host that leaves and joins again while a clock is wrong."""

_BURN: Final = """
import os, sys
parent = int(sys.argv[1])
print("burning", flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def cores() -> int:
    return len(os.sched_getaffinity(0))


@contextmanager
def burners(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes that want a core each, in our session and as important as we are. They end with us."""
    command = [sys.executable, "-c", _BURN, str(os.getpid())]
    made = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for burner in made:
            assert burner.stdout is not None
            assert burner.stdout.readline() == "burning\n", "a burner did not start"
        yield made
    finally:
        for burner in made:
            burner.kill()
            burner.wait()
            assert burner.stdout is not None
            burner.stdout.close()


# Overload.


def overloaded(fleet: Fleet, for_s: float) -> list[Figure]:
    """Four burners a core for so long, and a while after."""
    before = deaths(fleet)
    with Watch(fleet.status, range(len(fleet))) as watch:
        with burners(BURNERS_PER_CORE * cores()) as burning:
            pids = [burner.pid for burner in burning] + [daemon.pid for daemon in fleet.daemons]
            sessions = {os.getsid(pid) for pid in pids}
            assert len(sessions) == 1, "who is in another session is scheduled apart from them"
            time.sleep(for_s)
        fleet.await_settled()
        series = watch.series
    return [
        Figure("members called dead", deaths(fleet) - before + len(said_of(series, "dead")), "", 0),
        Figure("elections", terms_gained(series), "", 1),
        seen("changes of leader", changes(series), ""),
        seen("members suspected", len(said_of(series, "suspect")), ""),
        seen("statuses told", len(series) / for_s, "a second"),
        seen("burners", BURNERS_PER_CORE * cores(), ""),
    ]


def overload(options: Options) -> list[Figure]:
    """Three hosts, for ``minutes``."""
    with Fleet(3) as fleet:
        fleet.form()
        return overloaded(fleet, options.minutes * 60)


# Clocks.


class Clocks:
    """Three members and a spare one, each with a wall clock that can be set."""

    def __init__(self, fleet: Fleet, clocks: list[WallClock]) -> None:
        self.fleet, self.clocks = fleet, clocks

    def ahead_s(self, number: int) -> float:
        """How far ahead a daemon believes to be, by the stamp of the line that it logs when it reloads."""
        daemon = self.fleet.daemons[number]
        known = len(daemon.log())
        daemon.kill(signal.SIGHUP)

        def told() -> str:
            lines = daemon.log()[known:].splitlines(keepends=True)
            return next((line for line in lines if "reload" in line and line.endswith("\n")), "")

        line = eventually(told, "it reloads")
        return float(json.loads(line)["time"]) - time.time()

    def join_through(self, number: int, valid_s: float) -> str:
        """The spare host leaves and joins with a token of this one. The code of what goes wrong, empty if nothing."""
        return self.join_again(str(self.fleet.ask(number, "cluster-token", valid_s=valid_s)["token"]))

    def join_again(self, token: str) -> str:
        if self.fleet.status(SPARE)["joined"]:
            self.fleet.ask(SPARE, "cluster-leave")
        try:
            self.fleet.ask(SPARE, "cluster-join", token=token)
        except AbiError as error:
            return error.code
        self.fleet.await_settled()
        return ""


@contextmanager
def clocks(folder: Path) -> Iterator[Clocks]:
    made = [WallClock(folder, f"clock-{number}") for number in range(SPARE + 1)]
    with Fleet(len(made), before=BEFORE, environments=[clock.environment for clock in made]) as fleet:
        fleet.form()
        yield Clocks(fleet, made)
    for clock in made:
        clock.close()


class Jump:
    """What came of one: of whose clock, from where to where."""

    def __init__(self, world: Clocks, who: int, from_s: float, to_s: float) -> None:
        """From now on it is so far ahead. A token of before, of somebody else, is at hand."""
        self.world, self.who, self.from_s, self.to_s = world, who, from_s, to_s
        other = next(number for number in range(SPARE) if number != who)
        self.brief = str(world.fleet.ask(other, "cluster-token", valid_s=BRIEF_S)["token"])
        self.began = time.monotonic()
        world.clocks[who].set(to_s)

    def wrongs(self, recorder: Recorder) -> list[str]:
        """What does not work as it should, in words."""
        world, host = self.world, self.world.fleet.hosts[self.who]
        found = []
        is_leader = world.fleet.leader() == self.who
        told = world.join_again(self.brief)
        ahead_s = world.ahead_s(self.who)
        assert abs(ahead_s - self.to_s) < 60, f"the daemon's clock is {ahead_s:.0f} s ahead, not {self.to_s:.0f} s"
        wanted = "expired_token" if is_leader and self.to_s - self.from_s > BRIEF_S else ""
        if told != wanted:
            found.append(f"a token of half an hour, made before: {told or 'taken'}, not {wanted or 'taken'}")
        if told := world.join_through(self.who, HOUR_S):
            found.append(f"a token of an hour, made by it: {told}")
        if not recorder.is_heard_by(host):
            found.append("it does not hear beacons")
        if not recorder.hears(host):
            found.append("its beacons are not heard")
        return found


def jumped(
    world: Clocks, recorder: Recorder, watch: Watch, who: int, from_s: float, to_s: float, for_s: float
) -> list[str]:
    """Set a clock, see that all goes on for so long, and what does not work, in words."""
    fleet = world.fleet
    before = deaths(fleet)
    jump = Jump(world, who, from_s, to_s)
    wrong = jump.wrongs(recorder)
    time.sleep(max(0.0, jump.began + for_s - time.monotonic()))
    series = watch.since(jump.began)
    wrong += [f"{count} {what}" for what, count in {
        "elections": terms_gained(series),
        "changes of leader": changes(series),
        "members called dead": deaths(fleet) - before + len(said_of(series, "dead")),
    }.items() if count]  # fmt: skip
    return wrong


def clock_jumps(options: Options) -> list[Figure]:
    """The leader's clock and a follower's, an hour ahead and back, an hour behind and back, ``minutes`` each."""
    lots = random.Random(options.seed)
    figures = []
    with tempfile.TemporaryDirectory(prefix="abi-clocks-") as folder, clocks(Path(folder)) as world:
        fleet = world.fleet
        recorder = Recorder(fleet, 0, SPARE)
        with Watch(fleet.status, range(SPARE)) as watch:
            for name in ("the leader", "a follower"):
                leader, _ = fleet.await_leader()
                others = [number for number in range(SPARE) if number != leader]
                who = leader if name == "the leader" else lots.choice(others)
                for from_s, to_s in itertools.pairwise((0.0, HOUR_S, 0.0, -HOUR_S, 0.0)):
                    wrong = jumped(world, recorder, watch, who, from_s, to_s, options.minutes * 60)
                    options.tell(f"{name} goes from {from_s:+.0f} to {to_s:+.0f} s: {'; '.join(wrong) or 'all well'}")
                    figures.append(
                        Figure(f"{name} from {from_s:+.0f} to {to_s:+.0f} s: what went wrong", len(wrong), "", 0)
                    )
        recorder.close()
        figures.append(seen("clocks that OpenSSL saw", sum(clock.reaches_openssl for clock in world.clocks), "of 4"))
    return figures


# Idle.


class Cost:
    """Of a member, since then: CPU, wire, wakings."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet, self._number = fleet, number
        self._began = time.monotonic()
        self._cpu_s = fleet.cpu_s(number)
        self._bytes = fleet.wire_bytes(number)
        self._wakings = wakings(fleet.daemons[number].pid)

    def figures(self, name: str, kilobytes_max: float) -> list[Figure]:
        took_s = time.monotonic() - self._began
        cpu_s = self._fleet.cpu_s(self._number) - self._cpu_s
        received, sent = (now - before for now, before in zip(
            self._fleet.wire_bytes(self._number), self._bytes, strict=True
        ))  # fmt: skip
        woken = wakings(self._fleet.daemons[self._number].pid) - self._wakings
        return [
            Figure(f"{name}: CPU", 100 * cpu_s / took_s, "% of a core", 0.5),
            Figure(f"{name}: on the wire", (received + sent) / took_s / 1000, "KB/s", kilobytes_max),
            seen(f"{name}: received", received / took_s / 1000, "KB/s"),
            seen(f"{name}: sent", sent / took_s / 1000, "KB/s"),
            seen(f"{name}: wakings", woken / took_s, "a second"),
        ]


def wakings(pid: int) -> int:
    """How often the threads of a process have gone to sleep by themselves so far (proc(5))."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        (line,) = [line for line in (task / "status").read_text().splitlines() if line.startswith("voluntary_ctxt")]
        count += int(line.split()[1])
    return count


def idled(fleet: Fleet, members: Sequence[int], for_s: float) -> list[Figure]:
    """Of each member, undisturbed for so long."""
    leader, _ = fleet.await_leader()
    costs = {number: Cost(fleet, number) for number in members}
    time.sleep(for_s)
    told = []
    for number, cost in costs.items():
        told += cost.figures("leader" if number == leader else f"follower {number}", 12 if number == leader else 6)
    return told


def idle(options: Options) -> list[Figure]:
    """Three hosts, for ``minutes``."""
    with Fleet(3) as fleet:
        fleet.form()
        time.sleep(SETTLE_S)
        return idled(fleet, range(3), options.minutes * 60)


SCENARIOS = (
    Scenario("overload", "four times more runnable processes than cores: nobody is called dead", overload, minutes=5),
    Scenario("clock_jumps", "a wall clock jumps by an hour: nobody stands, nobody dies", clock_jumps, minutes=0.5),
    Scenario("idle", "what an idle member of three costs", idle, minutes=3),
)
