"""How much of a flood is read: sockets that always have another packet, on a loop whose time is the test's.

What that costs, `./dev torture cluster --only beacons` measures.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from abid.cluster.lan import LOOK_AWAY_S, LOOKS_MAX, PACKETS_PER_LOOK_MAX, Lan

PACKET, SOURCE = b"a packet", ("10.0.0.9", 8081)
SECONDS = 2


class Ear:
    """A socket with so many packets in it."""

    def __init__(self, holds: float) -> None:
        self.holds = holds

    def recvfrom(self, count: int) -> tuple[bytes, tuple[str, int]]:
        if not self.holds:
            raise BlockingIOError
        self.holds -= 1
        return PACKET, SOURCE


class Loop:
    """Turns of ``turn_s`` each, in which it looks at who has something, and at one timer."""

    def __init__(self, *ears: Ear) -> None:
        self.now = 1000.0
        self.heard: list[float] = []
        self._readers: dict[Ear, Callable[[], None]] = {}
        self._timer: tuple[float, Callable[[], None]] | None = None
        self.lan = Lan(cast("Any", self), 8081, lambda packet, source: self.heard.append(self.now))
        self.lan._ears = [cast("socket.socket", ear) for ear in ears]
        self.lan._listen()

    def time(self) -> float:
        return self.now

    def add_reader(self, ear: Ear, look: Callable[[], None]) -> None:
        self._readers[ear] = look

    def remove_reader(self, ear: Ear) -> None:
        del self._readers[ear]

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        assert self._timer is None
        self._timer = self.now + delay, callback

    def run(self, seconds: float, turn_s: float) -> None:
        for _ in range(round(seconds / turn_s)):
            if self._timer is not None and self._timer[0] <= self.now:
                (_, callback), self._timer = self._timer, None
                callback()
            for ear in [ear for ear in self._readers if ear.holds]:
                if ear in self._readers:
                    self._readers[ear]()
            self.now += turn_s


@pytest.mark.parametrize("turn_s", [0.0001, 0.001, 0.007, 0.03])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_of_a_flood_so_much_is_read_and_the_rest_is_left_to_the_kernel(turn_s: float, count: int) -> None:
    """In all sockets together, however often the loop turns."""
    loop = Loop(*(Ear(float("inf")) for _ in range(count)))
    loop.run(SECONDS, turn_s)
    spans = SECONDS / LOOK_AWAY_S + 1
    assert 0 < len(loop.heard) <= spans * LOOKS_MAX * PACKETS_PER_LOOK_MAX
    assert loop.heard[-1] >= 1000 + SECONDS - 2 * max(turn_s, LOOK_AWAY_S), "it goes on"


def test_who_is_not_flooded_is_heard_all_the_same() -> None:
    flooded, quiet = Ear(float("inf")), Ear(0)
    loop = Loop(flooded, quiet)
    loop.run(1, 0.001)
    quiet.holds = 1
    loop.run(2 * LOOK_AWAY_S, 0.001)
    assert quiet.holds == 0


def test_one_beacon_to_each_of_some_sockets_is_no_flood() -> None:
    """All are heard in the turn in which they come."""
    ears = [Ear(1) for _ in range(LOOKS_MAX - 1)]
    loop = Loop(*ears)
    loop.run(0.001, 0.001)
    assert [ear.holds for ear in ears] == [0] * len(ears)
    assert loop._timer is None, "nor is looked away"
