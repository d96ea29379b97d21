"""Retries for a program's own calls: `abi.backoff`'s rule with a clock, lots and sleep.

`abi.network.Retry` is its public name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from abi import backoff

P = ParamSpec("P")
R = TypeVar("R")


class Retry:
    """Calls again what failed and may succeed: `abi.backoff` tells how long it waits between, and when it gives up.

    At most `max_retries` further tries, each after a random wait of up to `base_ms`, then twice that, and so on to
    `cap_ms`; none that would begin more than `budget_ms` after the first. Only errors for which `retryable` is true are
    tried again (`NodeUnreachable`, `Timeout`, `Busy`, ConnectionError, TimeoutError); the last one is raised. **What is
    called must be safe to do twice.**
    """

    def __init__(
        self,
        max_retries: int = backoff.MAX_RETRIES,
        *,
        base_ms: int = backoff.BASE_MS,
        cap_ms: int = backoff.CAP_MS,
        budget_ms: int = backoff.BUDGET_MS,
        retryable: Callable[[BaseException], bool] = backoff.is_retryable,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.policy = backoff.Backoff(max_retries, base_ms, cap_ms, budget_ms)
        self._retryable = retryable
        self._clock = clock
        self._sleep = sleep

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)`, again and again if need be. Raises what the last try raised."""
        tries = self._tries()
        while True:
            try:
                return fn(*args, **kwargs)
            except Exception as problem:
                wait_ns = tries.on_failure(problem, self._clock())
                if wait_ns is None:
                    raise
            self._sleep(wait_ns / 1e9)

    async def call_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)`, likewise."""
        import asyncio

        tries = self._tries()
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception as problem:
                wait_ns = tries.on_failure(problem, self._clock())
                if wait_ns is None:
                    raise
            await asyncio.sleep(wait_ns / 1e9)

    def _tries(self) -> backoff.Tries:
        # Drawn anew for each call: threads need not share it, and a forked process does not repeat its parent's.
        return backoff.Tries(self.policy, backoff.Lots(os.urandom(16)), self._clock(), self._retryable)
