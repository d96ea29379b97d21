"""A worker as the rules see it: what it was given, what it holds, what it does as far as is known."""

from __future__ import annotations

import enum
from collections import deque

from abid.core.resources import Shape
from abid.core.session import Session
from abid.core.task import Record


class Phase(enum.IntEnum):
    """LIVE → LEAVING (told to stop, or killed) → GONE (reaped); also LIVE → GONE."""

    LIVE = 0
    LEAVING = 1
    GONE = 2


class Worker:
    """A process of one session."""

    __slots__ = (
        "blocked", "borders", "calls", "command", "each_ns", "gpu_ids", "idle_since", "killed", "last_call", "number",
        "number_next", "outstanding", "phase", "recall_asked", "recalled_to", "running", "session", "shape", "since",
        "stuck", "submitter", "touched",
    )  # fmt: skip

    def __init__(self, number: int, session: Session, submitter: int, gpu_ids: list[str], command: bool) -> None:
        self.number = number
        """In the daemon, never used again."""
        self.session = session
        self.submitter = submitter
        """In its session."""
        self.gpu_ids = gpu_ids
        """Its cards, for life."""
        self.command = command
        """A supervisor of one command."""
        self.phase = Phase.LIVE
        self.killed = False
        self.outstanding: deque[Record] = deque()
        """Calls it was given and has not answered, by ascending number."""
        self.number_next = 1
        self.shape: Shape | None = None
        """What it holds; None while nothing is outstanding."""
        self.each_ns = 0
        """Learned time of one outstanding call, on average."""
        self.running = 0
        """The call that runs, as far as is known; 0: not known, or none."""
        self.since = 0
        self.blocked = False
        """Its running call waits for others, and its processors are given back meanwhile."""
        self.recall_asked = False
        self.borders: deque[int] = deque()
        """The last number before each recall of which a DROPPED may still come."""
        self.recalled_to = 0
        """Calls up to this number will not start unless they had when the worker was recalled."""
        self.stuck = False
        """Its running call took long or waits: nothing is put behind it before something ends."""
        self.idle_since = 0
        self.calls: dict[int, int] = {}
        """Calls by function, where ``max_calls`` counts them."""
        self.last_call = False
        """It leaves when what it has is done."""
        self.touched = False
        """Noted for ``settle``."""

    def __repr__(self) -> str:
        return f"<worker {self.number} {self.phase.name.lower()}, {len(self.outstanding)} outstanding>"

    def find(self, number: int) -> Record | None:
        for record in self.outstanding:
            if record.number == number:
                return record
        return None
