"""A loop for stories without sockets: while all of them wait, its clock goes on at once to the next timer.

So nothing takes long, and how fast the machine is changes nothing. A story that waits for what never comes ends at its
time limit, and that is at once, too.
"""

from __future__ import annotations

import asyncio
import math
import selectors


class _Clock(selectors.PollSelector):
    """Does not wait for as long as it is told to: so much time has passed then."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nobody is to be woken, ever"
            self.now_ns += math.ceil(timeout * 1e9)  # who is woken is never too early
        return found


class VirtualTime(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_ns / 1e9
