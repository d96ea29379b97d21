"""A task's record and its states; every transition is in ``TRANSITIONS``, and ``lifecycle`` and ``workers`` follow it.

    NEW ──▶ WAITING ──▶ QUEUED ◀──▶ ASSIGNED
     │          │          │            │
     └──────────┴──────────┴────────────┴──▶ ENDED

A decoded SUBMIT frame *is* a list of records: nothing is copied on the way in. Records are untracked by the garbage
collector, so they refer to one another in one direction only: a producer to the records that wait for it, until it
ends. Everything else between tasks (parent, children, dependencies, nested references) is a sequence number.
"""

from __future__ import annotations

from typing import Any, Final

from abi.wire.schema import End, Task

NEW: Final = 0
"""Decoded, not yet admitted."""
WAITING: Final = 1
"""For the ends of its dependencies."""
QUEUED: Final = 2
"""In the queue of its options."""
ASSIGNED: Final = 3
"""Handed to a worker, which may or may not have started it: among that worker's outstanding calls."""
ENDED: Final = 4
"""Its one end is recorded; it stays for as long as somebody holds it."""

STATE_NAMES: Final = ("new", "waiting", "queued", "assigned", "ended")

TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    NEW: frozenset({WAITING, QUEUED, ENDED}),
    WAITING: frozenset({QUEUED, ENDED}),
    QUEUED: frozenset({ASSIGNED, ENDED}),
    ASSIGNED: frozenset({QUEUED, ENDED}),
    ENDED: frozenset(),
}
"""ASSIGNED → QUEUED: recalled, dropped, or its worker died and it may start again."""

NO_CAUSE: Final = 0
CANCELLED_ALONE: Final = 1
CANCELLED_WITH_CHILDREN: Final = 2
FORCED: Final = 3
TIMED_OUT: Final = 4
"""Why an assigned task is being ended by us. With any of these it is never started again."""


class Guard:
    """A type that no message can hold: a frame with more fields than ``Task`` has is refused at this one.

    Without it a client could set the daemon's own fields by sending a longer array.
    """


class Record(Task, eq=False):
    """A task, an object that was put, or an end that somebody still waits for."""

    guard: Guard = None  # type: ignore[assignment]  # never nil on the wire either
    state: int = NEW
    attempt: int = 1
    """Number of the start that is under way or comes next."""
    charged: int = 0
    """Starts that its own fault ended."""
    uncharged: int = 0
    """Starts that ended by no fault of its own."""
    worker: int = 0
    number: int = 0
    """Of the call at that worker."""
    holds: int = 1
    """References held by the program."""
    pins: int = 0
    """References held by anybody else: workers, arguments and dependencies of unfinished tasks, results."""
    waiting_for: int = 0
    queued_ns: int = 0
    cause: int = NO_CAUSE
    linked: bool = False
    """Something hangs on it (dependencies, dependents, nested references, children, descriptors, a cause, a want, a
    submitter other than the program): it ends by the long way. Most tasks are not, and theirs is short."""
    end: End | None = None
    blobs: list[Any] | None = None
    """Descriptors held for it: its arguments' until it ends, its result's from then on. Never looked into here."""
    dependents: list[Record] | None = None
    children: list[int] | None = None

    def __repr__(self) -> str:
        return f"<task {self.seq:x} {STATE_NAMES[self.state]}, attempt {self.attempt}>"
