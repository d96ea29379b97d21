"""Functions and how long they take."""

from __future__ import annotations

from typing import Any, Final

from abi.wire.schema import Function

CALL_NS: Final = 3_000
"""What a call costs a worker beside the function itself: unpickling, the page, the result."""


class RunTime:
    """The learned run time of one function, in ns; 0 while nothing is known.

    A moving average with a clipped step: a sample above twice the estimate raises it by a quarter, any other moves it
    an eighth of the way. So one call in a hundred that takes a thousand times longer leaves the estimate within a
    third of the ordinary call's (+25 % once, then (7/8)^n), where a plain average would be ten times too long and
    batches ten times too small; a function that really became a thousand times slower is learned within 31 calls
    (1.25^31 ≈ 1000), and until then recall bounds the harm. The first sample often holds
    imports; it is halved away: a sample below a quarter of the estimate halves it.
    """

    __slots__ = ("estimate_ns", "samples")

    def __init__(self) -> None:
        self.estimate_ns = 0
        self.samples = 0


def learn(estimate_ns: int, ran_ns: int) -> int:
    """The next estimate. ``on_results`` has the same formula written out, because a call would cost more than it
    does."""
    if not estimate_ns:
        return max(1, ran_ns)
    if ran_ns > estimate_ns << 1:
        return estimate_ns + (estimate_ns >> 2) + 1
    if ran_ns < estimate_ns >> 2:
        return max(1, estimate_ns >> 1)
    return max(1, estimate_ns + (ran_ns - estimate_ns >> 3))


class FunctionRecord:
    """A function of a session, under the session's own index."""

    __slots__ = ("blobs", "run_time", "wire")

    def __init__(self, wire: Function, run_time: RunTime, blobs: list[Any] | None) -> None:
        self.wire = wire
        """As workers get it: ``index`` is the session's."""
        self.run_time = run_time
        self.blobs = blobs
        """The descriptor with its pickle, if that travelled in one."""
