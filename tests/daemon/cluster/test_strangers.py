"""In whose turn a handshake begins, and who goes when there are too many."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest

from abi.errors import AbiError
from abid.cluster.link import Link, State
from abid.cluster.refusal import Code
from abid.cluster.strangers import GREETING_S, HANDSHAKES_AT_ONCE, HANDSHAKES_PER_S, STRANGERS_MAX, Bucket, Strangers


def test_a_bucket_gives_so_many_at_once_and_so_many_a_second() -> None:
    bucket = Bucket(per_s=10, at_once=3, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s() == pytest.approx(0.1)
    assert not bucket.take(100.05)
    assert bucket.wait_s() == pytest.approx(0.05)
    assert bucket.take(100.1001)
    assert not bucket.take(100.1001)


def test_a_bucket_does_not_save_up_more_than_it_holds() -> None:
    bucket = Bucket(per_s=10, at_once=3, now=0.0)
    assert [bucket.take(1e6) for _ in range(4)] == [True, True, True, False]
    assert sum(bucket.take(1e6 + step / 100) for step in range(1, 1001)) == 100


class Clock:
    """A loop of which only the time is wanted."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(lambda: callback(*args))
        heapq.heappush(self._due, (self.now + delay, next(self._numbers), timer))
        return timer

    def go_to(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            self.now, _, timer = heapq.heappop(self._due)
            timer.fire()
        self.now = now


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


class Knock:
    """A link as the strangers see it."""

    def __init__(self, clock: Clock, address: str) -> None:
        self.address = address
        self.state = State.HELD
        self.began: float | None = None
        self.ended: tuple[float, str] | None = None
        self._clock = clock

    def begin(self) -> None:
        self.state, self.began = State.HANDSHAKE, self._clock.now

    def refuse(self, error: AbiError) -> None:
        self.state, self.ended = State.ENDED, (self._clock.now, error.code)

    abort = refuse


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.strangers = Strangers(cast("asyncio.AbstractEventLoop", self.clock))

    def knock(self, address: str, *, speaks: bool = True) -> Knock:
        knock = Knock(self.clock, address)
        self.strangers.add(cast("Link", knock))
        if speaks:
            self.strangers.wait_for_turn(cast("Link", knock))
        return knock


def test_handshakes_begin_in_turn_and_at_a_bounded_rate() -> None:
    scene = Scene()
    knocks = [scene.knock("10.0.0.1") for _ in range(STRANGERS_MAX)]
    assert [knock.began for knock in knocks].count(0.0) == HANDSHAKES_AT_ONCE
    scene.clock.go_to(STRANGERS_MAX / HANDSHAKES_PER_S)
    began = [knock.began for knock in knocks if knock.began is not None]
    assert len(began) == STRANGERS_MAX
    assert began == sorted(began)
    for number, time in enumerate(began):
        assert time == pytest.approx(max(0, number + 1 - HANDSHAKES_AT_ONCE) / HANDSHAKES_PER_S)


def test_who_went_while_it_waited_takes_nobodys_turn() -> None:
    scene = Scene()
    knocks = [scene.knock("10.0.0.1") for _ in range(HANDSHAKES_AT_ONCE + 10)]
    waiting = knocks[HANDSHAKES_AT_ONCE:]
    for knock in waiting[:-1]:
        knock.abort(AbiError())
    scene.clock.go_to(1.5 / HANDSHAKES_PER_S)
    assert waiting[-1].began == pytest.approx(1 / HANDSHAKES_PER_S)
    assert [knock.began for knock in waiting[:-1]] == [None] * 9


def test_the_oldest_of_the_busiest_address_makes_room() -> None:
    scene = Scene()
    member = scene.knock("10.0.0.1", speaks=False)
    flood = [scene.knock("10.0.0.2", speaks=False) for _ in range(1000)]
    assert len(scene.strangers) == STRANGERS_MAX
    assert member.ended is None
    stay = STRANGERS_MAX - 1
    assert [knock.ended for knock in flood[-stay:]] == [None] * stay
    assert {knock.ended for knock in flood[:-stay]} == {(0.0, Code.BUSY)}


def test_a_member_is_heard_while_another_address_floods() -> None:
    """The flood speaks, too: 1,000 handshakes a second are asked for, and each turn of the member's comes in time."""
    scene = Scene()
    members = []
    for number in range(3000):
        scene.clock.go_to(number / 1000)
        scene.knock("10.0.0.2")
        if number % 1000 == 500:
            members.append((scene.clock.now, scene.knock("10.0.0.1")))
    scene.clock.go_to(4.0)
    for came, knock in members:
        assert knock.began is not None
        assert knock.began - came <= 2 / HANDSHAKES_PER_S


def test_who_does_not_say_who_it_is_goes() -> None:
    scene = Scene()
    silent, answered, member = (scene.knock(f"10.0.0.{last}") for last in range(3))
    scene.strangers.give_time(cast("Link", answered), 30.0)
    scene.clock.go_to(1.0)
    scene.strangers.discard(cast("Link", member))
    scene.clock.go_to(GREETING_S)
    assert [knock.ended for knock in (silent, answered, member)] == [(GREETING_S, Code.SILENT), None, None]
    scene.clock.go_to(60.0)
    assert [knock.ended for knock in (answered, member)] == [(30.0, Code.SILENT), None]


def test_what_is_given_time_after_it_went_does_no_harm() -> None:
    scene = Scene()
    gone = scene.knock("10.0.0.1")
    scene.strangers.discard(cast("Link", gone))
    scene.strangers.give_time(cast("Link", gone), 30.0)
    assert len(scene.strangers) == 0
