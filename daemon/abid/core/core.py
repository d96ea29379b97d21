"""The rules, as the shell calls them: events in, effects out.

The shell, in one thread: calls ``on_…`` for what came, then ``schedule(now)``, then performs what ``effects()``
returns, in order, before the next event. ``now`` is monotonic nanoseconds. Sessions, workers and records are shared
objects: the shell reads them, and writes only ``Session.stalled`` and, before ``on_submit``, ``Record.blobs``.
"""

from __future__ import annotations

from typing import Any, Final

from abi.errors import ProtocolError
from abi.ids import SUBMITTERS_MAX
from abi.wire.schema import UNITS, End, EndKind, Function, Options, Put
from abid.core import cancel, deadlock, departure, effects, holds, lifecycle, options, recall, results, scheduler
from abid.core import why as why_
from abid.core.board import RUN_TIMES_MAX, Board, Limits
from abid.core.effects import Effect
from abid.core.functions import FunctionRecord, RunTime
from abid.core.invariants import check
from abid.core.options import OptionsRecord
from abid.core.queues import Account, Queue
from abid.core.resources import Shape, Total
from abid.core.retry import Death
from abid.core.session import Session
from abid.core.task import ASSIGNED, QUEUED, WAITING, Record
from abid.core.workers import Worker

SUBMITTERS_PER_LIFE: Final = 1 << 12
"""Numbers for a session's workers under one daemon: more than a program has in the life of one, as a rule."""
DEFINITIONS_MAX: Final = 1 << 20
"""Functions, and options, that one submitter may define: a program that makes one for each call ends somewhere."""


class Core:
    """See the module. ``board`` holds the state and is for reading."""

    def __init__(self, limits: Limits, total: Total, host: str) -> None:
        self.board = Board(limits, total, host)

    # Sessions.

    def open_session(
        self, number: int, user: int, now: int, commands: bool = False, namespace: str = "default", life: int = 0
    ) -> Session:
        """``commands``: each worker is a supervisor that runs one task. ``life``: not 0 for a session that an earlier
        daemon had; its workers are numbered apart from those of then, whose tasks the program may still refer to."""
        board = self.board
        session = Session(number, user, board.users.setdefault(user, Account()), commands, namespace)
        session.account.since = now
        session.submitter_next += life % (SUBMITTERS_MAX // SUBMITTERS_PER_LIFE) * SUBMITTERS_PER_LIFE
        board.sessions[number] = session
        return session

    def close_session(self, session: Session, now: int) -> None:
        """The program is gone: nothing of it is needed any more. Its workers are killed, and free what they hold when
        they are reaped. Idempotent."""
        board = self.board
        if session.closed:
            return
        session.closed = True
        for queue in session.queues.values():
            board.delist(queue)
        for record in session.tasks.values():
            board.discard(record.blobs)
            if record.state == WAITING:
                board.waiting -= 1
            elif record.state == QUEUED:
                board.queued -= 1
            elif record.state == ASSIGNED:
                board.assigned -= 1
            if record.end is None:
                board.stats.ended[EndKind.CANCELLED] += 1
            record.dependents = record.children = record.blobs = None
        for function in session.functions:
            board.discard(function.blobs)
        for worker in list(session.workers.values()):
            worker.outstanding.clear()
            board.touch(worker)
            recall.kill(board, worker)
            departure.wake(board, worker)
        for table in (session.tasks, session.queues, session.wants, session.outbox, session.holders, session.idle):
            table.clear()
        session.open_tasks = session.open_bytes = session.nested_tasks = session.nested_bytes = 0
        board.delivering.pop(session.number, None)
        if not session.workers:
            board.forget(session)
        if not any(other.user == session.user for other in board.sessions.values()):
            board.users.pop(session.user, None)

    def on_function(
        self, session: Session, submitter: int, function: Function, blobs: list[Any] | None = None
    ) -> FunctionRecord:
        """The session-wide function of a definition; the same digest is the same function. Raises ProtocolError for
        more than a program may define."""
        board = self.board
        holder = session.holder(submitter)
        known = session.functions_by_digest.get(function.digest)
        if known is None:
            defined_bytes = session.defined_bytes + (function.size or len(function.pickled or b""))
            if defined_bytes > board.limits.bytes_max:
                raise ProtocolError(
                    f"the functions of this program have {defined_bytes} bytes, and queue.bytes_max allows "
                    f"{board.limits.bytes_max}: give large data to a function as an argument"
                )
            session.defined_bytes = defined_bytes
            run_time = board.run_times.get(function.digest)
            if run_time is None:
                if len(board.run_times) >= RUN_TIMES_MAX:
                    del board.run_times[next(iter(board.run_times))]
                run_time = board.run_times[function.digest] = RunTime()
            index = len(session.functions)
            wire = Function(index, function.digest, function.name, function.pickled, function.size)
            known = FunctionRecord(wire, run_time, blobs)
            session.functions.append(known)
            session.functions_by_digest[function.digest] = known
        else:
            board.discard(blobs)
        _define(holder.functions, function.index, known.wire.index, "function")
        holder.identity = holder.identity and known.wire.index == function.index
        return known

    def on_options(self, session: Session, submitter: int, wire: Options) -> OptionsRecord:
        """The session-wide options of a definition; equal options are one."""
        holder = session.holder(submitter)
        options.check_values(wire)
        value = options.value_of(wire)
        known = session.options_by_value.get(value)
        if known is None:
            known = self._new_options(session, wire)
            session.options.append(known)
            session.options_by_value[value] = known
        _define(holder.options, wire.index, known.wire.index, "options")
        holder.identity = holder.identity and known.wire.index == wire.index
        return known

    def _new_options(self, session: Session, wire: Options) -> OptionsRecord:
        key = options.shape_key(wire, session.commands)
        shape = self.board.shapes.setdefault(key, Shape(*key))
        refused = self.board.resources.infeasible(shape)
        if not refused and wire.gpus % UNITS:
            refused = f"asks for {wire.gpus / UNITS:g} gpus: parts of a card are not handed out yet, whole ones are"
        own = Options(
            len(session.options), wire.name, wire.cpus, wire.memory, wire.gpus, wire.resources, wire.max_retries,
            wire.retry_exceptions, wire.retry_types, wire.timeout_ns, wire.priority, wire.returns, wire.max_calls,
        )  # fmt: skip
        return OptionsRecord(
            own, shape, refused, self._queue(session, wire.priority, shape, False),
            self._queue(session, wire.priority, shape, True),
        )  # fmt: skip

    def _queue(self, session: Session, priority: int, shape: Shape, nested: bool) -> Queue:
        key = (priority, shape, nested)
        queue = session.queues.get(key)
        if queue is None:
            queue = session.queues[key] = Queue(session, priority, shape, nested)
        return queue

    # Submitters.

    def on_submit(self, session: Session, submitter: int, records: list[Record], now: int, too_many: str = "") -> None:
        """``too_many``: why tasks with descriptors are refused at the moment. Raises ProtocolError for an index never
        defined or a foreign sequence; what came before it is admitted."""
        lifecycle.on_submit(self.board, session, submitter, records, now, too_many)

    def on_put(
        self,
        session: Session,
        submitter: int,
        puts: list[Put],
        blobs: dict[int, list[Any]] | None = None,
        too_many: str = "",
    ) -> None:
        """``blobs`` by index in ``puts``; ``too_many``: why they are not kept."""
        holds.on_put(self.board, session, submitter, puts, blobs, too_many)

    def on_want(self, session: Session, submitter: int, seqs: list[int]) -> None:
        holds.on_want(self.board, session, submitter, seqs)

    def on_borrow(self, session: Session, submitter: int, seqs: list[int]) -> None:
        holds.on_borrow(session, submitter, seqs)

    def on_release(self, session: Session, submitter: int, seqs: list[int]) -> None:
        holds.on_release(self.board, session, submitter, seqs)

    def on_cancel(self, session: Session, seqs: list[int], force: bool, recursive: bool, now: int) -> None:
        cancel.on_cancel(self.board, session, seqs, force, recursive, now)

    # Workers.

    def on_results(self, worker: Worker, ends: list[End], now: int, blobs: dict[int, list[Any]] | None = None) -> None:
        """``blobs`` by index in ``ends``."""
        results.on_results(self.board, worker, ends, now, blobs)

    def on_dropped(self, worker: Worker, numbers: list[int], now: int) -> None:
        recall.on_dropped(self.board, worker, numbers, now)

    def on_recalled(self, worker: Worker, running: int, since: int, now: int) -> None:
        """The answer to Recall, after the page's epoch was raised: what RUNNING, then SINCE, read then."""
        recall.on_recalled(self.board, worker, running, since, now)

    def on_progress(self, worker: Worker, running: int, since: int, now: int) -> None:
        recall.on_progress(self.board, worker, running, since, now)

    def on_blocked(self, worker: Worker, number: int, now: int) -> None:
        results.on_blocked(self.board, worker, number, now)

    def on_unblocked(self, worker: Worker, number: int, now: int) -> None:
        results.on_unblocked(self.board, worker, number, now)

    def on_exit(self, worker: Worker, running: int, cause: Death, now: int) -> None:
        """The process was reaped; all its results that could be read have been given. ``running``: RUNNING of its
        page."""
        departure.on_exit(self.board, worker, running, cause, now)

    # Time.

    def on_timer(self, now: int) -> None:
        """Call ``on_progress`` for busy workers first: a task's clock starts when it does."""
        board = self.board
        cancel.on_timer(board, now)
        deadlock.on_timer(board, now)
        for worker in list(board.idle.values()):
            if worker.idle_since + board.limits.idle_timeout_ns > now:
                break
            departure.stop(board, worker, now)

    def next_timer(self) -> int | None:
        """When ``on_timer`` has something to do, if nothing happens before."""
        board = self.board
        due = board.clocks[0][0] if board.clocks else None
        if board.idle:
            leaves = next(iter(board.idle.values())).idle_since + board.limits.idle_timeout_ns
            due = leaves if due is None else min(due, leaves)
        stuck = deadlock.due(board)
        return stuck if due is None or (stuck is not None and stuck < due) else due

    def schedule(self, now: int) -> None:
        scheduler.schedule(self.board, now)

    def effects(self) -> list[Effect]:
        """Takes what is to be done: commands to workers in their order, then ends, then what can be closed."""
        board = self.board
        taken = board.effects
        board.effects = []
        if board.delivering:
            for session in board.delivering.values():
                for submitter, records in session.outbox.items():
                    if records:
                        taken.append(effects.Deliver(session, submitter, records))
                session.outbox = {}
            board.delivering = {}
        if board.discarded:
            taken.append(effects.Discard(board.discarded))
            board.discarded = []
        return taken

    # The node.

    def drain(self, now: int) -> None:
        """From now on nothing starts but what running tasks submitted, which they may wait for. What runs goes on, what
        was handed out comes back; what programs still send is kept for as long as we are there, then theirs again."""
        self.board.draining = True
        for worker in self.board.workers.values():
            if len(worker.outstanding) > 1:
                recall.ask(self.board, worker)

    @property
    def draining(self) -> bool:
        return self.board.draining

    @property
    def running_count(self) -> int:
        """Tasks at workers."""
        return self.board.assigned

    @property
    def waiting_count(self) -> int:
        """Tasks that wait for others."""
        return self.board.waiting

    @property
    def queued_count(self) -> int:
        return self.board.queued

    def undispatched(self, session: Session) -> list[int]:
        """Tasks of a session that no worker has: what a drain leaves undone."""
        return [record.seq for record in session.tasks.values() if record.state in (WAITING, QUEUED)]

    def why(self, session: Session, record: Record, now: int) -> str:
        return why_.why(self.board, session, record, now)

    def check(self) -> None:
        """Raises InvariantError. For tests: it looks at everything."""
        check(self.board)


def _define(indexes: list[int], index: int, own: int, what: str) -> None:
    """Note that a submitter's ``index`` is our ``own``. A program that returns says all again."""
    if 0 <= index < len(indexes):
        indexes[index] = own
    elif index == len(indexes) and index < DEFINITIONS_MAX:
        indexes.append(own)
    else:
        raise ProtocolError(f"{what} {index} is defined out of order: {len(indexes)} comes next")
