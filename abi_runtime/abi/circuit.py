"""The circuit breaker for a program's own calls: `abi.breaker`'s rule with a lock and a clock.

`abi.network.CircuitBreaker` is its public name.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from abi import breaker
from abi.errors import CircuitOpen

P = ParamSpec("P")
R = TypeVar("R")
Kinds = type[BaseException] | tuple[type[BaseException], ...]


class CircuitBreaker:
    """Lets calls of something that fails pass only now and then: `abi.breaker` tells the rule.

    After `failure_threshold` failures in a row each call raises `CircuitOpen` at once, without being made. After
    `reset_timeout_ms` at most `half_open_max_calls` calls are let through; when all of them succeed the breaker closes,
    when one fails it is open again.

    `failures` says which exceptions are failures (by default every `Exception`); any other `Exception` shows that the
    callee answers, and counts as a success. What only ends the caller (KeyboardInterrupt, a cancelled task) counts as
    nothing, so a time limit belongs *inside* the function that is called.

    May be shared by threads and by the tasks of an event loop. Raises ValueError for a limit below 1.
    """

    def __init__(
        self,
        failure_threshold: int = breaker.FAILURE_THRESHOLD,
        reset_timeout_ms: int = breaker.RESET_TIMEOUT_NS // 1_000_000,
        half_open_max_calls: int = breaker.HALF_OPEN_MAX_CALLS,
        *,
        failures: Kinds = Exception,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._rule = breaker.Breaker(failure_threshold, reset_timeout_ms * 1_000_000, half_open_max_calls)
        self._failures = failures
        self._clock = clock
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state}>"

    @property
    def state(self) -> str:
        """ "closed", "open" or "half-open"."""
        return self._rule.name(self._clock())

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)`, if the breaker lets it pass. Raises `CircuitOpen`, what `fn` raises, and TypeError
        for a coroutine function: its failure comes later, see `call_async`."""
        with self._watched():
            result = fn(*args, **kwargs)
            if inspect.iscoroutine(result):
                result.close()
                raise _Misused("call() would not see how a coroutine ends: use `await breaker.call_async(fn, …)`")
            return result

    async def call_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)`, if the breaker lets it pass. Raises `CircuitOpen` and what `fn` raises."""
        with self._watched():
            return await fn(*args, **kwargs)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        permit = self._admitted()
        verdict = self._rule.abandoned  # whatever is no Exception ends the caller and says nothing of the callee
        try:
            yield
            verdict = self._rule.succeeded
        except BaseException as problem:
            if isinstance(problem, _Misused):
                raise
            if isinstance(problem, self._failures):
                verdict = self._failed
            elif isinstance(problem, Exception):
                verdict = self._rule.succeeded
            raise
        finally:
            with self._lock:
                verdict(permit)

    def _failed(self, permit: breaker.Permit) -> None:
        self._rule.failed(permit, self._clock())

    def _admitted(self) -> breaker.Permit:
        with self._lock:
            answer = self._rule.admit(self._clock())
        if isinstance(answer, breaker.Permit):
            return answer
        retry_after_ms = -(-answer.retry_after_ns // 1_000_000)
        raise CircuitOpen(
            f"the circuit breaker is {self.state}: the calls before this one failed",
            hint=f"try again after {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )


class _Misused(TypeError):
    """The breaker was used wrongly, which is no failure of the callee."""
