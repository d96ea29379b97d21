"""A loop for what sets timers: it notes them, and none of them rings."""

from __future__ import annotations

from collections.abc import Callable


class Loop:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Loop:
        self.delays.append(delay)
        return self

    def cancel(self) -> None: ...
