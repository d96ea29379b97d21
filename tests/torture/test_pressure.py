"""Overload, wrong clocks, idleness, lying beacons and churn at their smallest, in one cluster.

What elections, times and bytes come to is told here and not held, as in ``test_cluster``: here it is held that nobody
is called dead, that nobody is lost, and that no two lead in one term.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.system.harness import eventually, state_of
from tests.torture import clocks
from tests.torture.beacons import Recorder, lied_to, too_close
from tests.torture.churn import Town, churned
from tests.torture.clocks import BEFORE, WallClock
from tests.torture.figures import Figure
from tests.torture.fleet import Fleet
from tests.torture.pressure import HOUR_S, SPARE, Clocks, burners, idled, jumped, overloaded, wakings
from tests.torture.pressure import clocks as with_clocks
from tests.torture.watching import Watch

T = TypeVar("T")
SCENES_MAX = 5
LOOK = "import os, time; print(time.time(), time.time_ns() / 1e9, time.monotonic(), os.stat('/proc/self').st_ctime)"


def looked(environment: dict[str, str], before: str = "") -> list[float]:
    """What time it is in a program: twice by the wall, and by the two clocks that are never set."""
    command = [sys.executable, "-c", f"{before}\n{LOOK}"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("how", ["loaded before the C library", "in Python"])
def test_a_clock_is_wrong_in_one_process_only_and_monotonic_time_is_right(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "in Python":
        monkeypatch.setattr(clocks, "built", lambda folder: None)
    clock = WallClock(tmp_path)
    if how != "in Python" and not clock.reaches_openssl:
        pytest.skip("there is no C compiler")
    for ahead_s in (0.0, HOUR_S, -HOUR_S):
        clock.set(ahead_s)
        right = looked({})
        wall, wall_ns, monotonic, _ = looked(clock.environment, BEFORE)
        assert [wall - right[0], wall_ns - right[1]] == pytest.approx([ahead_s] * 2, abs=60)
        assert monotonic == pytest.approx(right[2], abs=60)
    clock.close()


def test_burners_want_a_core_each_and_end() -> None:
    with burners(2) as burning:
        assert all(burner.poll() is None for burner in burning)
    assert all(burner.poll() is not None for burner in burning)


def test_wakings_are_counted() -> None:
    program = "for line in open(0):\n    print(line, end='', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as sleeper:
        assert sleeper.stdin is not None
        assert sleeper.stdout is not None
        for count in range(1, 6):
            eventually(lambda: state_of(sleeper.pid) == "S", "it sleeps")
            assert wakings(sleeper.pid) >= count
            sleeper.stdin.write("on\n")
            assert sleeper.stdout.readline() == "on\n"
        sleeper.stdin.close()


def test_dials_that_follow_too_soon_are_counted() -> None:
    assert too_close([]) == too_close([1.0]) == too_close([1.0, 2.0, 3.5]) == 0
    assert too_close([1.0, 1.5, 2.5, 2.6]) == 2


@pytest.fixture(scope="module")
def world(needs_hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clocks]:
    with with_clocks(tmp_path_factory.mktemp("clocks")) as made:
        yield made


def held(figures: list[Figure], *beside: str) -> None:
    """All gates, but for what a machine that is busy with other tests cannot show."""
    gates = [figure for figure in figures if figure.kind == "gate" and figure.name not in beside]
    assert gates
    assert not [figure for figure in gates if figure.fails]


def with_a_follower(world: Clocks, play: Callable[[int], T]) -> T:
    """What came of a scene in which nobody stood. On a busy machine somebody may; then it is played again, with
    whoever follows by then."""
    for _ in range(SCENES_MAX):
        leader, term = world.fleet.await_leader()
        came = play(next(number for number in range(SPARE) if number != leader))
        if world.fleet.await_leader() == (leader, term):
            return came
    raise AssertionError("somebody stood in each scene")


def test_nobody_is_called_dead_for_being_slow(world: Clocks) -> None:
    held(overloaded(world.fleet, 0.5), "elections")


def test_what_an_idle_member_costs_is_measured(world: Clocks) -> None:
    """In a second or, on a busy machine, in one of the next."""

    def is_measured() -> bool:
        return all(figure.value > 0 for figure in idled(world.fleet, range(SPARE), 1))

    eventually(is_measured, "each of them has woken, heard and spoken in one second")


def test_a_member_an_hour_behind_makes_tokens_that_are_good(world: Clocks) -> None:
    def behind(follower: int) -> str:
        world.clocks[follower].set(-HOUR_S)
        assert world.ahead_s(follower) == pytest.approx(-HOUR_S, abs=60)
        told = world.join_through(follower, HOUR_S)
        world.clocks[follower].set(0)
        return told

    assert with_a_follower(world, behind) == ""


def test_a_followers_clock_jumps_by_an_hour_and_back(world: Clocks) -> None:
    recorder = Recorder(world.fleet, 0, SPARE)
    try:
        with Watch(world.fleet.status, range(SPARE)) as watch:

            def jumps(follower: int) -> list[str]:
                there = jumped(world, recorder, watch, follower, 0.0, HOUR_S, 0.5)
                back = jumped(world, recorder, watch, follower, HOUR_S, 0.0, 0.5)
                assert not [what for what in there + back if "called dead" in what]
                return there + back

            assert with_a_follower(world, jumps) == []
    finally:
        recorder.close()


def members_of(fleet: Fleet) -> list[tuple[set[str], set[str]]]:
    """Voters and members, as each sees them."""
    told = [fleet.status(number) for number in range(SPARE)]
    return [(set(one["voters"]), {node["id"] for node in one["nodes"]}) for one in told]


def test_lies_at_ten_thousand_a_second_change_nothing(world: Clocks) -> None:
    fleet = world.fleet
    recorder = Recorder(fleet, 0, SPARE)
    before = members_of(fleet)
    try:
        figures = lied_to(fleet, recorder, 1, SPARE, 0.5)
        # Of its members, whether they are suspect or not connected for a moment does not count here.
        held(figures, "members that changed", "elections", "CPU more than idle", "dials within a second of another")
        assert members_of(fleet) == before
        assert recorder.is_heard_by(fleet.hosts[1]), "else it was deaf to all of them"
    finally:
        recorder.close()


def test_one_is_sent_away_and_comes_back_as_somebody_else(world: Clocks) -> None:
    fleet = world.fleet
    before = fleet.nodes[SPARE]
    town = Town(fleet, random.Random(1), print, set(range(SPARE + 1)))
    town.do("send away", SPARE)
    town.do("join", SPARE)
    assert fleet.nodes[SPARE] != before
    assert town.counts == {"send away": 1, "join": 1}


def test_who_votes_is_right_after_each_step_of_a_churn(world: Clocks) -> None:
    fleet = world.fleet
    town = Town(fleet, random.Random(1), print, set(range(SPARE + 1)))
    held(churned(town, 2, 0, SPARE, 0.1), "descriptors more")  # those of what has just ended
    assert len(town.took_s) >= 3
    while town.out:
        town.do("join", min(town.out))
