"""How long to wait before a request is tried again, and when to give up.

Exponential back-off with *full* jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the
n-th wait is drawn evenly from [0, min(cap, base · 2ⁿ)], which of the variants compared there does the least work and
ends earliest, since callers that failed together do not come back together. The lots must therefore differ from node
to node: ``Lots`` is seeded with what only one node has.

A request has a total budget of time besides its number of tries: a wait that would end after it is not begun. What is
tried again must be safe to do twice; who calls promises that.

Pure: the clock and the lots are parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from abi.errors import AbiError, Busy, NodeUnreachable, Timeout

MAX_RETRIES: Final = 3
"""The seed's. Four tries see a lost packet or a restart through; what fails four times is no accident."""
BASE_MS: Final = 100
"""Some round trips on any network: a shorter first wait would ask before anything can have changed."""
CAP_MS: Final = 5_000
"""Whoever waits for an answer has forgotten longer pauses; five seconds do not load a peer."""
BUDGET_MS: Final = 30_000
"""As long as one request may take: a caller who allowed that much does not want a multiple of it."""
WORD_BITS: Final = 64
_WORD: Final = (1 << WORD_BITS) - 1


class Lots:
    """Numbers in [0, 1) that no two nodes draw alike, and that a test can replay: SplitMix64 (Steele, Lea and Flood
    2014), seeded with the digest of the words given: the node's id, what the lots are for, and which life of the
    daemon it is, say."""

    def __init__(self, *words: bytes | str | int) -> None:
        seed = hashlib.blake2b(digest_size=8)
        for word in words:
            part = word if isinstance(word, bytes) else str(word).encode()
            seed.update(len(part).to_bytes(8, "big") + part)  # so that ("ab", "c") is not ("a", "bc")
        self._state = int.from_bytes(seed.digest(), "big")

    def __call__(self) -> float:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        mixed = self._state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _WORD
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _WORD
        return ((mixed ^ mixed >> 31) >> 11) / (1 << 53)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The policy. Raises ValueError for a negative number."""

    max_retries: int = MAX_RETRIES
    base_ms: int = BASE_MS
    cap_ms: int = CAP_MS
    budget_ms: int = BUDGET_MS

    def __post_init__(self) -> None:
        for name in ("max_retries", "base_ms", "cap_ms", "budget_ms"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name} must not be negative, not {value}")

    def ceiling_ns(self, retry: int) -> int:
        """The longest wait before retry number ``retry``, counted from 0: min(cap, base · 2ⁿ)."""
        # Two to the sixtieth milliseconds are longer than any cap; the shift must not grow with the count.
        return min(self.cap_ms, self.base_ms << min(retry, 60)) * 1_000_000

    def wait_ns(self, retry: int, lot: float) -> int:
        """The wait before that retry, for a lot in [0, 1)."""
        return int(self.ceiling_ns(retry) * lot)


def is_retryable(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later. A refusal, a wrong request and a task's own end may not,
    and what an open breaker refused is not to be asked again and again."""
    if isinstance(error, AbiError):
        return isinstance(error, NodeUnreachable | Timeout | Busy)
    return isinstance(error, ConnectionError | TimeoutError)


class Tries:
    """The tries of one request, begun at ``now_ns``."""

    def __init__(
        self,
        policy: Backoff,
        lots: Callable[[], float],
        now_ns: int,
        retryable: Callable[[BaseException], bool] = is_retryable,
    ) -> None:
        self.policy = policy
        self.retries = 0
        self._lots = lots
        self._retryable = retryable
        self._until_ns = now_ns + policy.budget_ms * 1_000_000

    def on_failure(self, error: BaseException, now_ns: int) -> int | None:
        """Nanoseconds to wait before the next try; None: give up, for this error is final, or tries or time are used
        up."""
        if self.retries >= self.policy.max_retries or not self._retryable(error):
            return None
        wait_ns = self.policy.wait_ns(self.retries, self._lots())
        if isinstance(error, Busy):  # it said when; the jitter parts those to whom it said the same
            wait_ns += error.retry_after_ms * 1_000_000
        if now_ns + wait_ns > self._until_ns:
            return None
        self.retries += 1
        return wait_ns
