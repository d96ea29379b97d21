"""A follower that sleeps through what changes nothing does what it would do if it woke for each tick."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from abid.cluster.consensus import SETTINGS
from abid.cluster.ticking import TICK_S, Ticking
from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Role
from abid.core.raft.log import Log
from abid.core.raft.messages import HardState, Kind, Message, Snapshot
from abid.core.raft.raft import Raft

LEADER, OTHER = 1, 3
CONFIGURATION = Configuration(voters=frozenset({1, 2, 3}))


def follower(number: int = 2, *, configuration: Configuration = CONFIGURATION, lot: int = 2) -> Raft:
    log, take = Log(1, 1, []), lambda: Snapshot(1, 1, configuration)
    raft = Raft(number, log, configuration, HardState(1), lambda low, high: min(low + lot, high), take, SETTINGS)
    hear(raft)
    return raft


def hear(raft: Raft) -> None:
    raft.step(Message(Kind.HEARTBEAT, LEADER, raft.number, term=1))


def ask_for_vote(raft: Raft) -> bool:
    """Whether it is given: the leader was not heard for long enough."""
    raft.outbox.clear()
    raft.step(Message(Kind.PRE_VOTE, OTHER, raft.number, term=2, index=1, log_term=1))
    return bool(raft.outbox)


class Slept:
    """A member whose shell wakes when it is told to."""

    def __init__(self, raft: Raft) -> None:
        self.raft, self.ticking, self.wakings = raft, Ticking(raft, 0.0), 0

    def until(self, now: float) -> None:
        while self.raft.role == Role.FOLLOWER and (next_at := self.ticking.next_at) <= now:
            self.ticking.wake(next_at)
            self.wakings += 1

    def hear(self, now: float) -> None:
        self.until(now)
        hear(self.raft)
        self.ticking.begin_anew(now)

    def ask_for_vote(self, now: float) -> bool:
        self.until(now)
        self.ticking.catch_up(now)
        return ask_for_vote(self.raft)


class Awake:
    """One that wakes for each tick."""

    def __init__(self, raft: Raft) -> None:
        self.raft, self.ticks = raft, 0

    def until(self, now: float) -> None:
        while (self.ticks + 1) * TICK_S <= now + 1e-9:
            self.ticks += 1
            if self.raft.role == Role.FOLLOWER:
                self.raft.tick()

    def hear(self, now: float) -> None:
        self.until(now)
        hear(self.raft)

    def ask_for_vote(self, now: float) -> bool:
        self.until(now)
        return ask_for_vote(self.raft)


def moments(lots: random.Random) -> Iterable[tuple[float, str]]:
    """Words of a leader with gaps of up to an election timeout and more; none on the grid itself."""
    at = 0.0
    while at < 30:
        at += lots.choice([0.03, 0.1, 0.1, 0.1, 0.37, 0.53, 0.7]) * lots.uniform(0.9, 1.1)
        yield at, lots.choice(["hear", "hear", "hear", "ask"])


@pytest.mark.parametrize("seed", range(40))
def test_it_stands_and_votes_in_the_same_tick(seed: int) -> None:
    lots = random.Random(seed)
    lot = lots.randrange(4)
    one, other = Slept(follower(lot=lot)), Awake(follower(lot=lot))
    for at, what in moments(lots):
        if one.raft.role != Role.FOLLOWER:
            break
        if what == "ask":
            assert one.ask_for_vote(at) == other.ask_for_vote(at)
        else:
            one.hear(at)
            other.hear(at)
        assert one.raft.role == other.raft.role, at
        assert one.wakings <= other.ticks
    while one.raft.role == Role.FOLLOWER:
        at += TICK_S
        one.until(at)
        other.until(at)
        assert one.raft.role == other.raft.role, at


def test_who_hears_its_leader_wakes_twice_a_second_at_most() -> None:
    one = Slept(follower())
    for tenth in range(1, 301):
        one.hear(tenth * TICK_S + 0.02)
    assert one.wakings <= 60


def test_a_lost_connection_is_acted_upon_by_rank() -> None:
    """In the next tick where we are first in rank, else so many later."""
    for number, ticks in ((2, 1), (3, 1 + SETTINGS.rank_ticks)):
        one = Slept(follower(number))
        one.hear(1.5 * TICK_S)
        one.ticking.catch_up(4.2 * TICK_S)
        one.raft.leader_lost(LEADER)
        assert one.ticking.next_at == pytest.approx((4 + ticks) * TICK_S)
        one.until((4 + ticks) * TICK_S + 0.01)
        assert one.raft.role == Role.PRE_CANDIDATE


def test_one_that_was_stopped_reads_first_and_stands_if_there_was_nothing_to_read() -> None:
    for is_heard in (True, False):
        one = Slept(follower())
        one.hear(0.15)
        one.ticking.catch_up(9.0)
        assert one.raft.since_heard == 0, "nobody was heard, for a reason of its own"
        one.ticking.wake(9.0)
        assert one.raft.role == Role.FOLLOWER
        assert 9.0 < one.ticking.next_at < 9.0 + SETTINGS.election_ticks * TICK_S
        if is_heard:
            one.hear(9.01)
            assert one.ticking.next_at > 9.01 + (SETTINGS.election_ticks - 1) * TICK_S
        now, turns = 9.0, 0
        while not is_heard and one.raft.role == Role.FOLLOWER:
            now, turns = one.ticking.next_at + 5 * TICK_S, turns + 1  # each turn is late
            one.ticking.wake(now)
        assert turns <= 4


def test_a_little_late_costs_half_a_tick() -> None:
    one = Slept(follower())
    due = one.ticking.next_at
    one.ticking.wake(due + 0.15)
    assert one.raft.role == Role.FOLLOWER
    assert one.ticking.next_at == pytest.approx(due + 0.15 + TICK_S / 2)
    one.ticking.wake(one.ticking.next_at)
    assert one.raft.role == Role.PRE_CANDIDATE


def test_a_leader_wakes_for_each_heartbeat_and_a_learner_now_and_then() -> None:
    learner = follower(9, configuration=Configuration(voters=frozenset({1, 2, 3}), learners=frozenset({9})))
    one = Slept(learner)
    one.until(60)
    assert one.wakings <= 12
    alone = follower(2, configuration=Configuration(voters=frozenset({2})))
    alone.campaign()
    while alone.has_output:
        alone.output()
        alone.done()
    assert alone.role == Role.LEADER
    assert alone.ticks_left == SETTINGS.heartbeat_ticks
