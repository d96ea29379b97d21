"""Everything the rules know, in one place, and the few straight moves on it that several rooms share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import msgspec

from abi.wire.schema import EndKind, Failure
from abid.core.functions import RunTime
from abid.core.queues import Account, Queue
from abid.core.resources import CPUS, Resources, Shape, Total
from abid.core.session import Session
from abid.core.task import Record

if TYPE_CHECKING:
    from abid.core.effects import Effect
    from abid.core.workers import Worker

RUN_TIMES_MAX: Final = 16_384
"""Functions whose run time is remembered beyond their session: 100 bytes each, more than a day's work of a person."""

_encode: Final = msgspec.msgpack.Encoder().encode

TYPE_NAMES: Final[dict[int, str]] = {
    EndKind.CRASHED: "WorkerCrashedError",
    EndKind.CANCELLED: "TaskCancelledError",
    EndKind.TIMED_OUT: "TaskTimedOut",
    EndKind.LOST: "TaskLostError",
    EndKind.REFUSED: "Refused",
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound of the rules. The defaults are those of the configuration."""

    processes_max: int
    """Workers at once. Nested tasks may go to twice that, since their parents keep a process each while they wait."""
    tasks_max: int = 2_000_000
    """Open tasks of a program."""
    bytes_max: int = 2 << 30
    """Arguments of a program's open tasks, looked at before each batch (which a frame bounds)."""
    nested_reserve: int = 10_000
    """What its tasks may submit beyond ``tasks_max``, all of them together: they could not end otherwise."""
    aging_ns: int = 5_000_000_000
    """Waiting this long is worth one step of priority; a shape that was given none for so long has room reserved."""
    batch_ns: int = 1_500_000
    """Learned work that a worker is given at once: long against a round trip (0.2 ms), short against a person."""
    interrupt_grace_ns: int = 2_000_000_000
    """From the interrupt of a task that ran out of time to the kill."""
    idle_timeout_ns: int = 60_000_000_000
    uncharged_starts_max: int = 16
    unread_results_bytes_max: int = 64 << 20
    """For the shell: beyond it, it sets ``session.stalled``."""
    retry_after_ms: int = 100
    """What a refused submitter is told to wait: a tenth of a second empties thousands of places."""


class Stats:
    """Counters since the start."""

    __slots__ = ("dispatched", "ended", "recalled", "retries", "stale", "submitted", "uncharged")

    def __init__(self) -> None:
        self.submitted = 0
        self.dispatched = 0
        self.ended = [0] * len(EndKind)
        """By end."""
        self.retries = 0
        """Charged starts that came to nothing and were followed by another."""
        self.uncharged = 0
        self.recalled = 0
        self.stale = 0
        """Ends of calls that nobody waits for."""


class Board:
    """The rules' state. Only functions of this package write it."""

    def __init__(self, limits: Limits, total: Total, host: str) -> None:
        self.limits = limits
        self.resources = Resources(total)
        self.host = host
        self.sessions: dict[int, Session] = {}
        self.users: dict[int, Account] = {}
        self.workers: dict[int, Worker] = {}
        """All that are not gone."""
        self.worker_next = 1
        self.leaving = 0
        self.shapes: WeakValueDictionary[tuple[int, int, tuple[tuple[str, int], ...], bool], Shape] = (
            WeakValueDictionary()
        )
        """Of all sessions that are here; a shape goes with the last that used it."""
        self.run_times: dict[bytes, RunTime] = {}
        self.active: list[Queue] = []
        """Queues that hold records."""
        self.reserved: Queue | None = None
        """The queue for which room is kept (see ``scheduler``)."""
        self.idle: dict[int, Worker] = {}
        """Workers with nothing to do, the longest idle first."""
        self.touched: list[Worker] = []
        """Workers that lost outstanding calls since the last ``schedule``."""
        self.clocks: list[tuple[int, int, int, bool]] = []
        """Heap of (when, worker, number, kill): a task's time runs out, or its grace."""
        self.draining = False
        self.stuck: Queue | None = None
        """A queue that cannot start while all that runs waits, and since when: see ``deadlock``."""
        self.stuck_since = 0
        self.stats = Stats()
        self.waiting = 0
        self.queued = 0
        self.assigned = 0
        self.effects: list[Effect] = []
        self.delivering: dict[int, Session] = {}
        self.discarded: list[Any] = []

    # Moves.

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def outbox(self, session: Session, submitter: int) -> list[Record]:
        """Where ends for a submitter are put; one that is gone has a list that nobody reads."""
        if submitter not in session.holders:
            return []
        self.delivering[session.number] = session
        return session.outbox.setdefault(submitter, [])

    def discard(self, blobs: list[Any] | None) -> None:
        if blobs:
            self.discarded.extend(blobs)

    def enlist(self, queue: Queue, now: int) -> None:
        """The queue has got a record."""
        if queue.listed:
            return
        queue.listed = True
        session = queue.session
        for account, peers in (
            (session.user_account, list(self.users.values())),
            (session.account, [s.account for s in self.sessions.values() if s.user == session.user]),
        ):
            if not account.queues and not account.held:
                account.wake(peers, now)
            account.queues += 1
        self.active.append(queue)

    def delist(self, queue: Queue) -> None:
        if queue.listed:
            queue.listed = False
            queue.session.account.queues -= 1
            queue.session.user_account.queues -= 1
            self.active.remove(queue)
            if self.reserved is queue:
                self.reserved = None

    def forget(self, session: Session) -> None:
        """The last of its workers is gone. A program that came back meanwhile has another session of the same
        number."""
        if self.sessions.get(session.number) is session:
            del self.sessions[session.number]

    def touch(self, worker: Worker) -> None:
        if not worker.touched:
            worker.touched = True
            self.touched.append(worker)

    def take_shape(self, worker: Worker, shape: Shape, now: int) -> None:
        """The worker gets its first outstanding calls."""
        self.resources.take(shape)
        worker.shape = shape
        self._account(worker, shape.cpus or 1, now)

    def give_shape(self, worker: Worker, now: int) -> None:
        """The worker has nothing outstanding any more. Idempotent."""
        shape = worker.shape
        if shape is None:
            return
        if worker.blocked:  # its processors were given back already
            self.unblock(worker, now)
        worker.shape = None
        self.resources.give(shape)
        self._account(worker, -(shape.cpus or 1), now)

    def block(self, worker: Worker, now: int) -> None:
        """Give a waiting worker's processors back, and no more: its memory is in use."""
        shape = worker.shape
        if shape is not None and not worker.blocked:
            worker.blocked = True
            self.resources.free[CPUS] += shape.cpus
            self._account(worker, -(shape.cpus or 1), now)

    def unblock(self, worker: Worker, now: int) -> None:
        """Take them again, even if none is free: free goes below 0, and nothing new starts until it is not."""
        shape = worker.shape
        if shape is not None and worker.blocked:
            worker.blocked = False
            self.resources.free[CPUS] -= shape.cpus
            self._account(worker, shape.cpus or 1, now)

    def _account(self, worker: Worker, units: int, now: int) -> None:
        worker.session.account.hold(units, now)
        worker.session.user_account.hold(units, now)

    def task_name(self, session: Session, record: Record) -> str:
        """What people call it: the options' name, or the function's."""
        if 0 <= record.options < len(session.options):
            name = session.options[record.options].wire.name
            if name:
                return name
        if 0 <= record.function < len(session.functions):
            return session.functions[record.function].wire.name
        return f"{record.seq:x}"

    def failure(
        self, session: Session, record: Record, kind: int, text: str, stderr: str = "", retry_after_ms: int = 0
    ) -> bytes:
        """The payload of an end that we decide. ``retry_after_ms``: it is refused for now, not for ever."""
        name = self.task_name(session, record)
        type_name = "QueueFullError" if retry_after_ms else TYPE_NAMES[kind]
        failure = Failure(type_name, text, host=self.host, task_name=name, stderr=stderr, retry_after_ms=retry_after_ms)
        return _encode(failure)
