"""The formulas, the order of what holds, the order of probing, and what is told on: tables and properties."""

from __future__ import annotations

import itertools
import random

import pytest

from abid.core.membership.health import Health
from abid.core.membership.member import Member
from abid.core.membership.messages import Rumour, State
from abid.core.membership.order import Order
from abid.core.membership.rumours import Rumours
from abid.core.membership.timers import NEVER, Due, Timers
from abid.core.membership.timings import SECOND, Settings, is_revisited, suspicion_ns, transmits_max
from tests.core.membership.story import Story

SETTINGS = Settings()
ALIVE, SUSPECT, DEAD, LEFT = State


@pytest.mark.parametrize(
    ("confirmed", "wanted", "seconds"),
    [(0, 3, 14.0), (1, 3, 10.5), (2, 3, 8.452), (3, 3, 7.0), (5, 3, 7.0), (0, 1, 14.0), (1, 1, 7.0), (0, 0, 7.0)],
)
def test_a_suspicion_is_the_shorter_the_more_confirm_it(confirmed: int, wanted: int, seconds: float) -> None:
    assert suspicion_ns(confirmed, wanted, SETTINGS) / SECOND == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize(("members", "times"), [(1, 2), (2, 2), (3, 3), (9, 4), (10, 5), (99, 8), (1000, 13)])
def test_a_rumour_is_told_as_often_as_the_logarithm_says(members: int, times: int) -> None:
    assert transmits_max(members, SETTINGS) == times


def test_nobody_is_dead_before_ten_seconds_and_there_is_time_to_answer_between() -> None:
    assert SETTINGS.suspect_after_ns + SETTINGS.suspicion_min_ns == 10 * SECOND
    assert SETTINGS.ask_after_ns + SETTINGS.help_ns < SETTINGS.suspect_after_ns
    assert SETTINGS.suspect_after_ns <= SETTINGS.last_look_ns < SETTINGS.suspicion_min_ns


@pytest.mark.parametrize(
    ("lot", "dead", "goes"), [(1, 1, True), (10, 1, True), (11, 1, False), (20, 2, True), (21, 2, False), (1, 0, False)]
)
def test_ten_look_for_each_of_the_dead(lot: int, dead: int, goes: bool) -> None:
    assert is_revisited(lot, dead, SETTINGS) is goes


def test_health_stretches_own_times_within_bounds() -> None:
    health = Health(8)
    health.better()
    assert health.stretched(SECOND) == SECOND
    health.worse(3)
    assert health.stretched(SECOND) == 4 * SECOND
    health.worse(100)
    assert health.stretched(SECOND) == 9 * SECOND
    health.better()
    assert health.stretched(SECOND) == 8 * SECOND


# What holds: have, hear, is it news.
PRECEDENCE = [
    ((ALIVE, 0), (ALIVE, 0), False),
    ((ALIVE, 0), (SUSPECT, 0), True),
    ((ALIVE, 1), (SUSPECT, 0), False),
    ((ALIVE, 1), (DEAD, 0), False),
    ((SUSPECT, 0), (ALIVE, 0), False),
    ((SUSPECT, 0), (ALIVE, 1), True),
    ((SUSPECT, 0), (DEAD, 0), True),
    ((SUSPECT, 1), (DEAD, 0), False),
    ((SUSPECT, 0), (SUSPECT, 1), True),
    ((DEAD, 0), (SUSPECT, 0), False),
    ((DEAD, 0), (ALIVE, 0), False),
    ((DEAD, 0), (ALIVE, 1), True),
    ((DEAD, 0), (LEFT, 0), True),
    ((LEFT, 0), (DEAD, 0), False),
    ((LEFT, 0), (ALIVE, 1), True),
]


@pytest.mark.parametrize(("have", "hear", "is_news"), PRECEDENCE)
def test_what_outranks_what(have: tuple[State, int], hear: tuple[State, int], is_news: bool) -> None:
    member = Member(2, 0)
    member.state, member.incarnation = have
    assert member.is_older_than(Rumour(2, hear[1], hear[0])) is is_news


def test_members_that_heard_the_same_agree_whatever_came_first() -> None:
    rumours = [Rumour(2, 0, SUSPECT, 3), Rumour(2, 1, ALIVE), Rumour(2, 1, SUSPECT, 4), Rumour(2, 0, DEAD)]
    ends = set()
    for order in itertools.permutations(rumours):
        story = Story(6)
        for rumour in order:
            story.tell(3, rumour)
        member = story.membership.members[2]
        ends.add((member.state, member.incarnation, story.membership.alive))
    assert ends == {(SUSPECT, 1, 4)}


# Whom to probe.


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_everybody_has_a_turn_in_each_round(count: int) -> None:
    order = Order(random.Random(count).randint)
    for member in range(count):
        order.add(member)
    rounds = [[order.next() for _ in range(count)] for _ in range(3)]
    assert all(sorted(one) == list(range(count)) for one in rounds)  # type: ignore[type-var]
    assert count < 5 or len({tuple(one) for one in rounds}) == 3


def test_a_newcomer_has_a_turn_in_the_round_that_runs_and_who_goes_costs_nobody_his() -> None:
    order = Order(random.Random(1).randint)
    for member in range(10):
        order.add(member)
    had = [order.next() for _ in range(4)]
    order.add(10)
    gone = next(member for member in range(10) if member not in had)
    order.remove(gone)
    order.remove(had[0] or 0)
    rest = [order.next() for _ in range(6)]
    assert sorted([*had, *rest]) == sorted(set(range(11)) - {gone})  # type: ignore[type-var]


def test_nobody_is_there_to_be_probed() -> None:
    order = Order(random.Random(1).randint)
    assert order.next() is None
    assert order.some(3, lambda _: True) == []


@pytest.mark.parametrize("count", [4, 63, 64, 500])
@pytest.mark.parametrize("fitting", [0, 1, 3, 4])
def test_some_are_found_where_few_suit(count: int, fitting: int) -> None:
    order = Order(random.Random(count).randint)
    for member in range(count):
        order.add(member)
    found = order.some(3, lambda member: member < fitting, excluded=(0,))
    assert len(found) == len(set(found)) == min(3, max(0, fitting - 1))
    assert all(0 < member < fitting for member in found)
    assert sorted(order.members) == list(range(count))


# What is told on.


def test_the_least_told_goes_first_and_of_those_the_newest() -> None:
    rumours = Rumours()
    for member in (1, 2, 3):
        rumours.add(Rumour(member, 0, DEAD))
    assert [rumour.member for rumour in rumours.take(2, 3)] == [3, 2]
    assert [rumour.member for rumour in rumours.take(2, 3)] == [1, 3]
    rumours.add(Rumour(4, 0, DEAD))
    assert [rumour.member for rumour in rumours.take(2, 3, {2: Rumour(2, 0, DEAD, 7)})] == [4, 1]
    assert [rumour.member for rumour in rumours.take(9, 3, {2: Rumour(2, 0, SUSPECT)})] == [4, 2, 1, 3]
    assert [rumour.member for rumour in rumours.take(9, 3)] == [4, 2]
    assert len(rumours) == 0


def test_news_of_a_member_ends_the_old() -> None:
    rumours = Rumours()
    rumours.add(Rumour(1, 0, SUSPECT, 2))
    assert len(rumours.take(9, 5)) == 1
    rumours.add(Rumour(1, 1, ALIVE))
    assert [rumours.take(9, 2) for _ in range(3)] == [[Rumour(1, 1, ALIVE)]] * 2 + [[]]
    rumours.add(Rumour(1, 1, DEAD))
    rumours.forget(1)
    assert rumours.take(9, 2) == []


# Timers.


def test_a_new_time_replaces_the_old() -> None:
    timers = Timers()
    one, other = (Due.ASK, 1, 0), (Due.ASK, 2, 0)
    timers.set(one, 5)
    timers.set(other, 7)
    timers.set(one, 9)
    assert [timers.take(4), timers.next_at, timers.take(8), timers.take(8)] == [None, 7, other, None]
    timers.set(one, 8)
    timers.drop(other)
    assert [timers.take(9), timers.take(9), timers.next_at] == [one, None, NEVER]
