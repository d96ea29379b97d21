"""The rules of membership on a loop."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from abid.cluster.health import RIDE_S, Health, _slept_ns
from abid.core.membership import messages
from abid.core.membership.messages import Probe, Rumour, State
from abid.core.membership.timers import Due
from tests.daemon.fake_loop import Loop

ROUNDING_S = 0.001
"""Of a loop's timers."""


def health_of(number: int, others: list[int]) -> tuple[Health, Loop]:
    loop = Loop()
    return Health(cast(Any, loop), number, others, 1, lambda *_: None, lambda _: None, lambda: None, lambda: None), loop


def test_it_asks_to_be_woken_when_there_is_something_to_do_and_no_sooner() -> None:
    """Timers of a loop ring up to a millisecond early, and it slept anew some times for each probe."""
    health, loop = health_of(1, [2])
    health.start()
    left_s = (health.rules.wake_at - time.monotonic_ns()) / 1e9
    assert loop.delays[-1] >= max(0.0, left_s) + ROUNDING_S


def test_who_was_there_is_known_from_what_others_say() -> None:
    health, _ = health_of(1, [2, 3])

    def hears(state: State) -> None:
        health.on_message(2, messages.encode(Probe(9, (Rumour(3, 7, state),))))

    assert not health.was_there(3, 60), "nobody has said anything of it since we started"
    assert not health.was_there(9, 60), "a stranger"
    hears(State.ALIVE)
    assert health.was_there(3, 0)
    hears(State.LEFT)
    assert health.was_there(3, 60)
    assert not health.was_there(3, 0)


def test_a_probe_rides_on_what_wakes_this_host_anyway() -> None:
    health, loop = health_of(1, [2])
    sent: list[int] = []
    health._send = lambda number, _: sent.append(number)
    health.rules.timers.set((Due.REVISIT, 0, 0), health.rules.clock + 3600 * 10**9)  # drawn, it may come first
    health.start()
    left_s = (health.rules.probe_at - time.monotonic_ns()) / 1e9
    assert loop.delays[-1] >= left_s + RIDE_S, "there is time for something else to wake it"
    health.rules.timers.set((Due.PROBE, 0, 0), health.rules.clock + 3600 * 10**9)
    health.ride()
    assert sent == [], "the next is not due for long"
    health.rules.timers.set((Due.PROBE, 0, 0), health.rules.clock + round(RIDE_S * 0.9e9))
    health.ride()
    assert sent == [2]


def test_who_is_stopped_between_two_clocks_was_not_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns, reads = 10**9, 0

    def clock(_: int) -> int:
        nonlocal now_ns, reads
        reads += 1
        now_ns += 3600 * 10**9 if reads in (2, 5) else 100  # on the way to the second clock, and to the third
        return now_ns

    monkeypatch.setattr(time, "clock_gettime_ns", clock)
    assert _slept_ns() == 100
