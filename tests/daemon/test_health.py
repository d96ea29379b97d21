"""The rules of membership on a loop."""

from __future__ import annotations

import time
from typing import Any, cast

from abid.cluster.health import Health
from tests.daemon.fake_loop import Loop

ROUNDING_S = 0.001
"""Of a loop's timers."""


def test_it_asks_to_be_woken_when_there_is_something_to_do_and_no_sooner() -> None:
    """Timers of a loop ring up to a millisecond early, and it slept anew some times for each probe."""
    loop = Loop()
    health = Health(cast(Any, loop), 1, [2], 1, lambda *_: None, lambda _: None, lambda: None, lambda: None)
    health.start()
    left_s = (health.rules.wake_at - time.monotonic_ns()) / 1e9
    assert loop.delays[-1] >= max(0.0, left_s) + ROUNDING_S
