"""Queues by (user, session, priority, shape), and who is served next. Nothing here ever walks over tasks."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from abid.core.resources import Shape
from abid.core.task import QUEUED, Record

if TYPE_CHECKING:
    from abid.core.session import Session


class Account:
    """What a user, or a session, has had: the integral of processors held over time, in units × ns.

    Held time counts while it passes, so that whoever has long tasks running is not mistaken for one who had nothing.
    Whoever comes anew begins with what the least served of the present have had (start-time fair queueing), otherwise
    a week's absence would be a week's privilege.
    """

    __slots__ = ("held", "queues", "served", "since")

    def __init__(self) -> None:
        self.held = 0
        self.served = 0
        self.since = 0
        self.queues = 0
        """Queues of it that hold tasks."""

    def at(self, now: int) -> int:
        return self.served + self.held * (now - self.since)

    def hold(self, units: int, now: int) -> None:
        self.served += self.held * (now - self.since)
        self.since = now
        self.held += units

    def wake(self, peers: list[Account], now: int) -> None:
        """It has work again after having had none."""
        least = min((peer.at(now) for peer in peers if peer is not self and (peer.held or peer.queues)), default=0)
        self.served = max(self.served, least)
        self.since = now


class Queue:
    """Tasks of one session that are alike to the scheduler.

    ``nested`` ones, submitted by workers, go before the program's and the newest first (depth first): a parent that
    waits holds its process, so breadth first would need a process for every parent at once.
    """

    __slots__ = ("dead", "listed", "nested", "priority", "records", "served_ns", "session", "shape")

    def __init__(self, session: Session, priority: int, shape: Shape, nested: bool) -> None:
        self.session = session
        self.priority = priority
        self.shape = shape
        self.nested = nested
        self.records: deque[Record] = deque()
        self.served_ns = 0
        """When a worker was last given something of it."""
        self.dead = 0
        """Records in it that ended meanwhile (cancelled): skipped when they come up."""
        self.listed = False
        """Whether the board's list of active queues has it."""

    def __repr__(self) -> str:
        return f"<queue of {len(self)} {self.shape!r}>"

    def __len__(self) -> int:
        return len(self.records) - self.dead

    def head(self) -> Record | None:
        """The first that still waits."""
        records = self.records
        while records:
            record = records[0]
            if record.state == QUEUED:
                return record
            records.popleft()
            self.dead -= 1
        return None
