"""Three to three hundred hosts in one process: what must hold in any weather, and planted faults that must show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from abid.core.membership import suspecting
from abid.core.membership.membership import Membership
from abid.core.membership.messages import State
from abid.core.membership.timings import SECOND
from tests.core.membership import test_stories
from tests.core.membership.simulation import World
from tests.core.membership.weather import storm

ROOT = Path(__file__).parents[3]


def everybody(world: World, state: State) -> bool:
    """Who is up holds each other for this."""
    up = [number for number, host in world.hosts.items() if host.is_up]
    return all(set(world.states(number).values()) == {state} for number in up)


def seen_as(world: World, of: int) -> set[State]:
    return set(world.states(of).values())


@pytest.mark.parametrize("count", [3, 5, 7, 20, 100])
@pytest.mark.parametrize("seed", range(2))
def test_deaths_are_seen_and_nobody_else_is_dead(count: int, seed: int) -> None:
    """With 1 % of words lost; one is killed, one loses its power, one stands still for 8 s."""
    world = World(count, seed, loss=0.01)
    killed, unpowered, stopped = world.random.sample(sorted(world.hosts), 3)
    world.at(20, world.kill, killed)
    world.at(20, world.stop, stopped)
    world.at(28, world.cont, stopped)
    dead = {killed: 20 * SECOND}
    if count > 3:
        world.at(21, world.power_off, unpowered)
        dead[unpowered] = 21 * SECOND
    world.run(60)
    for number, since in dead.items():
        first, last = world.times_to_detect(number, since)
        assert first is not None, f"{number} is held for dead by nobody"
        assert last is not None, f"{number} is not held for dead by everybody"
        assert first >= 9 * SECOND, "10 s of silence, of which the last word may be 1 s before the death"
        assert first < 20 * SECOND
    assert world.tally.false_deaths == []
    well = set(world.hosts) - set(dead)
    assert {state for number in well for state in world.states(number).values()} == {State.ALIVE}
    if count < 100:
        assert world.tally.words < 4 * count * 60


@pytest.mark.parametrize("seed", range(4))
def test_whoever_calls_a_member_dead_has_asked_three_others(seed: int) -> None:
    world = World(20, seed, loss=0.05)
    dead = world.random.sample(sorted(world.hosts), 4)
    for number in dead[:2]:
        world.at(10, world.kill, number)
    for number in dead[2:]:
        world.at(15, world.power_off, number)
    world.run(60)
    for number in dead:
        holders = world.tally.held_dead[number]
        by = min(holders, key=lambda who: (holders[who], who))
        assert len(world.tally.asked[by, number]) >= 3
        assert number not in world.tally.asked[by, number]


@pytest.mark.parametrize("count", [4, 12, 60])
def test_a_partition_divides_and_heals(count: int) -> None:
    world = World(count, 1)
    one = list(range(1, count // 2 + 1))
    world.run(5)
    world.partition(one)
    world.run(60)
    for number in world.hosts:
        mine = number in one
        for who, state in world.states(number).items():
            assert state == (State.ALIVE if (who in one) == mine else State.DEAD), f"{who} holds {number} for {state!r}"
    world.heal()
    world.run(120)
    assert everybody(world, State.ALIVE)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_one_way_between_two_is_no_death(count: int) -> None:
    """All others reach both."""
    world = World(count, 2)
    world.cut_one_way([(1, 2)])
    world.run(120)
    assert [(of, state) for _, _, of, state in world.tally.changes if state == State.DEAD] == []


@pytest.mark.parametrize("count", [3, 5, 40])
def test_a_suspended_host_declares_nobody_dead_and_is_back_at_once(count: int) -> None:
    world = World(count, 3)
    world.run(30)
    world.sleep(1, 600)
    world.run(629)
    assert seen_as(world, 1) == {State.DEAD}
    world.run(660)
    assert [of for _, who, of, state in world.tally.changes if who == 1 and state > State.ALIVE] == []
    assert everybody(world, State.ALIVE)


@pytest.mark.parametrize("seconds", [2, 9, 300])
@pytest.mark.parametrize("count", [3, 5, 20])
def test_a_stopped_host_accuses_nobody(count: int, seconds: int) -> None:
    world = World(count, 4)
    world.at(20, world.stop, 1)
    world.at(20 + seconds, world.cont, 1)
    world.run(80 + seconds)
    assert [of for _, who, of, state in world.tally.changes if who == 1 and state > State.ALIVE] == []
    assert everybody(world, State.ALIVE)
    assert world.tally.false_deaths == []
    if seconds < 10:
        assert world.tally.deaths == {}


def test_a_restarted_host_is_alive_again_for_everybody() -> None:
    world = World(20, 5)
    world.at(10, world.kill, 1)
    world.at(40, world.start, 1)
    world.run(39)
    assert seen_as(world, 1) == {State.DEAD}
    world.run(46)
    assert everybody(world, State.ALIVE)


def test_a_quick_restart_is_no_death() -> None:
    world = World(20, 6)
    world.at(10, world.kill, 1)
    world.at(12, world.start, 1)
    world.run(60)
    assert State.DEAD not in {state for _, _, _, state in world.tally.changes}
    assert State.SUSPECT in {state for _, _, of, state in world.tally.changes if of == 1}
    assert everybody(world, State.ALIVE)


def test_a_quick_restart_is_suspected_once() -> None:
    world = World(7, 6)
    world.at(10, world.kill, 1)
    world.at(11, world.start, 1)
    world.run(60)
    seen = [who for _, who, of, state in world.tally.changes if of == 1 and state == State.SUSPECT]
    assert len(seen) == len(set(seen)) == 6


def test_a_newcomer_learns_who_is_dead_without_waiting_for_it() -> None:
    """Restarted, it takes everybody for alive, and is told in the answers to its first probes."""
    world = World(20, 7)
    for number in (2, 3, 4):
        world.at(10, world.power_off, number)
    world.at(15, world.kill, 1)
    world.run(60)
    world.start(1)
    world.run(63)
    assert {world.hosts[1].membership.members[number].state for number in (2, 3, 4)} == {State.DEAD}


def test_who_leaves_has_left_for_everybody() -> None:
    world = World(40, 8)
    world.at(10, world.leave, 1)
    world.run(25)
    assert seen_as(world, 1) == {State.LEFT}
    world.run(60)
    assert {state for _, _, _, state in world.tally.changes} == {State.LEFT}


def test_many_words_lost_slow_judgement_and_do_not_spoil_it() -> None:
    """A fifth is lost, far more than TCP ever lets through. Suspicions there are, and all are refuted."""
    world = World(30, 9, loss=0.2)
    world.run(120)
    assert len(world.tally.false_suspicions) > 3
    assert world.tally.false_deaths == []


@pytest.mark.parametrize("block", range(3))
def test_after_any_weather_all_who_are_well_are_seen_to_be(block: int) -> None:
    """Kills, power cuts, stops, sleeps, partitions, one-way loss, leavings; nobody who was well died of them."""
    deaths = 0
    for seed in range(block * 8, block * 8 + 8):
        try:
            deaths += len(storm(seed).tally.deaths)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert deaths > 8


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[tuple[int, int, int, State]]:
        world = World(30, seed, loss=0.05)
        world.at(5, world.kill, 3)
        world.at(6, world.stop, 4)
        world.at(14, world.cont, 4)
        world.run(40)
        return world.tally.changes

    assert run(1) == run(1) != run(2)
    assert len(run(1)) > 60


# Faults that must show: a test of the tests.


def unaware_of_being_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "_at", lambda self, now_ns: setattr(self, "now_ns", now_ns))


def counting_lateness_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads first what came in, but the clock goes on."""
    monkeypatch.setattr(Membership, "on_deaf", lambda self, time_ns: None)


def asleep_and_unaware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "on_resumed", lambda self, now_ns: [])


def never_refuting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "refute", lambda self, incarnation: None)


def never_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead are not looked for."""
    monkeypatch.setattr("abid.core.membership.probing.is_revisited", lambda lot, dead, settings: False)


def keeping_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rumours."""
    monkeypatch.setattr("abid.core.membership.rumours.Rumours.take", lambda *_: [])


def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspecting, "suspicion_ns", lambda *_: 0)


def killing_by_hearsay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspicion that was only heard of ends in a death, without anybody asked."""
    begin = suspecting.on_lasted

    def on_lasted(m: Membership, member: suspecting.Member) -> None:
        if member.suspicion is not None:
            member.suspicion.is_own = member.suspicion.is_looked_after = True
        begin(m, member)

    monkeypatch.setattr(suspecting, "on_lasted", on_lasted)


def keeping_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier life did not answer is held against the new one."""
    monkeypatch.setattr("abid.core.membership.suspecting.probing.end", lambda m, number: None)


def forgetting_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is ever suspected."""
    monkeypatch.setattr(suspecting, "suspect", lambda *_: None)


PLANTED = [
    (unaware_of_being_late, test_stories.test_a_stopped_member_accuses_nobody_for_its_own_silence),
    (counting_lateness_as_silence, test_stories.test_who_is_always_late_goes_on_slowly_and_judges_late),
    (asleep_and_unaware, lambda: test_a_suspended_host_declares_nobody_dead_and_is_back_at_once(5)),
    (never_refuting, lambda: test_a_stopped_host_accuses_nobody(20, 9)),
    (never_refuting, lambda: test_a_partition_divides_and_heals(4)),
    (never_heard_again, lambda: test_a_partition_divides_and_heals(4)),
    (keeping_to_itself, lambda: test_deaths_are_seen_and_nobody_else_is_dead(100, 0)),
    (hasty, lambda: test_deaths_are_seen_and_nobody_else_is_dead(20, 0)),
    (killing_by_hearsay, test_many_words_lost_slow_judgement_and_do_not_spoil_it),
    (keeping_what_is_over, test_a_quick_restart_is_suspected_once),
    (never_heard_again, lambda: test_after_any_weather_all_who_are_well_are_seen_to_be(0)),
    (hasty, lambda: test_after_any_weather_all_who_are_well_are_seen_to_be(0)),
    (forgetting_to_judge, lambda: test_deaths_are_seen_and_nobody_else_is_dead(20, 0)),
]


@pytest.mark.parametrize(("plant", "story"), PLANTED)
def test_a_planted_fault_is_found(plant, story, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        story()


# The command.


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.core.membership.simulate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_the_command_prints_its_figures_and_the_same_again() -> None:
    done, again = (simulate("--hosts", "40", "--seed", "7") for _ in range(2))
    assert done.returncode == 0, done.stderr
    assert done.stdout == again.stdout
    for figure in ("40 hosts, 60 s, seed 7", "messages a host a second", "p50", "p99", "max", "false deaths "):
        assert figure in done.stdout


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--hosts", "2"], "3 to 5000"),
        (["--hosts", "9999"], "3 to 5000"),
        (["--seconds", "nan"], "40 at least"),
        (["--loss", "1"], "below 1"),
        (["--hosts", "9", "--deaths", "9", "--stops", "1"], "not more than 9"),
    ],
)
def test_what_cannot_be_simulated_is_refused(wrong: list[str], said: str) -> None:
    done = simulate(*wrong)
    assert done.returncode == 2
    assert said in done.stderr
