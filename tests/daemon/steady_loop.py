"""A loop whose time stands still while its process does: what a busy machine does to timers is no test's matter."""

from __future__ import annotations

import asyncio
import selectors
import time

SLEEP_S = 0.01
LOOK_S = 0.03
"""What passes at most from one look at the clock to the next."""


class SteadyLoop(asyncio.SelectorEventLoop):
    """Sleeps in short pieces, and counts none of them longer than LOOK_S."""

    def __init__(self) -> None:
        self._now = self._seen = time.monotonic()
        super().__init__(_Short())

    def time(self) -> float:
        """Seconds that passed, without those in which this process stood still."""
        seen = time.monotonic()
        self._now += min(seen - self._seen, LOOK_S)
        self._seen = seen
        return self._now

    def stand_still(self, seconds: float) -> None:
        """As a process does that is stopped, or gets no processor; this time its timers notice."""
        self._now += seconds


class _Short(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(SLEEP_S if timeout is None else min(timeout, SLEEP_S))
