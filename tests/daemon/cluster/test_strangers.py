"""In whose turn a handshake begins, and who goes when there are too many."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest

from abi.errors import AbiError
from abid.cluster.expected import KEPT_S, Expected, host_of
from abid.cluster.link import Link, State
from abid.cluster.refusal import Code
from abid.cluster.strangers import (
    GREETING_S,
    HANDSHAKES_AT_ONCE,
    HANDSHAKES_PER_S,
    STRANGERS_MAX,
    UNEXPECTED_MAX,
    Bucket,
    Strangers,
    source_of,
)  # fmt: skip


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
    def __init__(self, *expected: str) -> None:
        self.clock = Clock()
        self.strangers = Strangers(cast("asyncio.AbstractEventLoop", self.clock), lambda address: address in expected)

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
    member = scene.knock("10.0.1.1", speaks=False)
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
            members.append((scene.clock.now, scene.knock("10.0.1.1")))
    scene.clock.go_to(4.0)
    for came, knock in members:
        assert knock.began is not None
        assert knock.began - came <= 2 / HANDSHAKES_PER_S


@pytest.mark.parametrize(
    ("expected", "flood"),
    [
        ((), lambda number: f"fd00::{number:x}"),
        ((), lambda number: f"10.0.0.{number % 256}"),
        (("10.0.1.1",), lambda number: f"fd00:0:{number >> 16:x}:{number & 0xFFFF:x}::1"),
    ],
    ids=["one /64", "one /24", "as many networks"],
)
@pytest.mark.parametrize("per_s", [400, 2000])
def test_a_member_is_heard_while_many_addresses_flood(
    expected: tuple[str, ...], flood: Callable[[int], str], per_s: int
) -> None:
    """One network is held for one host, however many addresses it has; and against who has many networks a member's
    address has places and turns of its own."""
    scene = Scene(*expected)
    members = []
    for number in range(2 * per_s):
        scene.clock.go_to(number / per_s)
        scene.knock(flood(number))
        if number % per_s == per_s // 2:
            members.append((scene.clock.now, scene.knock("10.0.1.1")))
    scene.clock.go_to(3.0)
    for came, knock in members:
        assert knock.began is not None
        assert knock.began - came <= 2 / HANDSHAKES_PER_S


def test_a_flood_from_where_members_are_expected_leaves_places_for_others() -> None:
    """A member's host moved while a user of another member's host floods."""
    scene = Scene("10.0.0.2")
    for number in range(1000):
        scene.clock.go_to(number / 1000)
        scene.knock("10.0.0.2")
    moved = scene.knock("10.0.1.1")
    for number in range(1000, 2000):
        scene.clock.go_to(number / 1000)
        scene.knock("10.0.0.2")
    assert moved.began is not None
    assert moved.began - 1.0 <= 2 / HANDSHAKES_PER_S


def test_members_that_are_expected_push_out_nobody_but_who_has_more_than_half() -> None:
    hosts = [f"10.0.0.{number}" for number in range(100)]
    scene = Scene(*hosts)
    others = [scene.knock("10.0.1.1", speaks=False) for _ in range(STRANGERS_MAX)]
    members = [scene.knock(host, speaks=False) for host in hosts]
    assert [knock.ended for knock in others[UNEXPECTED_MAX:]] == [None] * UNEXPECTED_MAX
    assert [knock.ended for knock in members[-UNEXPECTED_MAX:]] == [None] * UNEXPECTED_MAX
    assert len(scene.strangers) == STRANGERS_MAX


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.7", "10.0.0.0/24"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.7", "10.0.0.0/24"),
        ("", ""),
    ],
)
def test_the_source_of_an_address(address: str, source: str) -> None:
    assert source_of(address) == source


def test_where_members_are_expected_is_looked_up_now_and_then() -> None:
    now, hosts = 100.0, ["10.0.0.1"]
    expected = Expected(lambda: hosts, lambda: now)
    assert (expected("10.0.0.1"), expected("10.0.0.2")) == (True, False)
    hosts.append("10.0.0.2")
    assert not expected("10.0.0.2")
    now += KEPT_S
    assert expected("10.0.0.2")


@pytest.mark.parametrize(("place", "host"), [("10.0.0.1:80", "10.0.0.1"), ("[fd00::7]:80", "fd00::7"), ("x", "")])
def test_the_host_of_a_place(place: str, host: str) -> None:
    assert host_of(place) == host


def test_who_does_not_say_who_it_is_goes() -> None:
    scene = Scene()
    silent, answered, member = (scene.knock(f"10.0.0.{last}") for last in range(3))
    scene.strangers.give_time(cast("Link", answered), 30.0)
    scene.clock.go_to(1.0)
    scene.strangers.discard(cast("Link", member))
    scene.clock.go_to(GREETING_S)
    assert [knock.ended for knock in (silent, answered, member)] == [(GREETING_S, Code.SILENT), None, None]
    scene.clock.go_to(60.0)
    assert [knock.ended for knock in (answered, member)] == [(30.0, Code.UNAVAILABLE), None]


def test_what_is_given_time_after_it_went_does_no_harm() -> None:
    scene = Scene()
    gone = scene.knock("10.0.0.1")
    scene.strangers.discard(cast("Link", gone))
    scene.strangers.give_time(cast("Link", gone), 30.0)
    assert len(scene.strangers) == 0
