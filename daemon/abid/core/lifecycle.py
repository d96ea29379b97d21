"""A task's life apart from workers: admission, dependencies, its one end. How long it is kept after that: ``holds``.

``finish`` is the only way to ENDED, but for the straight case in ``results``, which does the same for a task on which
nothing hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from abi.errors import ProtocolError
from abi.ids import COUNTER_BITS
from abi.wire.schema import ROOT, End, EndKind, Failure
from abid.core import holds, task
from abid.core.board import Board
from abid.core.session import Holder, Session
from abid.core.task import ASSIGNED, ENDED, QUEUED, WAITING, Record

NOTES_MAX: Final = 4
"""Notes that a failure gathers on its way along a chain of dependents: the first say where it came from."""

_failure_decoder: Final = msgspec.msgpack.Decoder(Failure)
_encode: Final = msgspec.msgpack.Encoder().encode


def on_submit(
    board: Board, session: Session, submitter: int, records: list[Record], now: int, too_many: str = ""
) -> None:
    """Admit a batch; with ``too_many``, only what brings no descriptors. Raises ProtocolError for an index that was
    never defined; what came before it is admitted."""
    if session.closed:
        return
    holder = session.holder(submitter)
    functions_count, options_count = len(holder.functions), len(holder.options)
    if not holder.identity:
        _renumber(session, holder, records)
        functions_count, options_count = len(session.functions), len(session.options)
    room, bytes_room = _room(board, session, submitter)
    if room < len(records) or bytes_room <= 0 or too_many:
        records = _refuse_beyond(board, session, submitter, records, room, bytes_room, too_many, now)
    tasks, options = session.tasks, session.options
    known_function: int | None = None
    known_options: int | None = None
    append: Callable[[Record], None] = _nowhere
    error = ""
    straight = size = 0
    plain = False
    for record in records:
        seq = record.seq
        if seq >> COUNTER_BITS != submitter:
            error = f"submitter {submitter} submitted task {seq:x}, which is not in its range"
            break
        if seq in tasks:
            _again(board, session, tasks[seq], record)
            continue
        if record.function != known_function:
            known_function = record.function
            if not 0 <= known_function < functions_count:
                error = f"task {seq:x} names function {known_function}, which was never defined"
                break
        if record.options != known_options:
            known_options = record.options
            if not 0 <= known_options < options_count:
                error = f"task {seq:x} names options {known_options}, which were never defined"
                break
            option = options[known_options]
            plain = not (option.refused or option.wire.max_calls) and submitter == ROOT
            append = option.queue.records.append
            if plain and not option.queue.listed:
                board.enlist(option.queue, now)
        tasks[seq] = record
        if plain and not (record.size or record.dependencies or record.nested or record.parent):
            record.state = QUEUED
            record.queued_ns = now
            size += len(record.arguments)
            straight += 1
            append(record)
        else:
            _admit(board, session, holder, record, now)
    board.queued += straight
    board.stats.submitted += straight
    session.open_tasks += straight
    session.open_bytes += size
    if error:
        raise ProtocolError(error)


def _nowhere(record: Record) -> None:
    """Until the first options are known there is no queue."""
    raise AssertionError(record)


def _renumber(session: Session, holder: Holder, records: list[Record]) -> None:
    """From the submitter's indexes to the session's."""
    functions, options = holder.functions, holder.options
    for record in records:
        if not (0 <= record.function < len(functions) and 0 <= record.options < len(options)):
            raise ProtocolError(
                f"task {record.seq:x} names function {record.function} and options {record.options}; "
                f"submitter {holder.submitter} has defined {len(functions)} and {len(options)}"
            )
        record.function = functions[record.function]
        record.options = options[record.options]


def _room(board: Board, session: Session, submitter: int) -> tuple[int, int]:
    """Tasks and bytes of arguments that a submitter may add. A program is held to what it knows of, its own tasks: it
    waits for room by itself, and would be refused for no reason that it can see if those of its tasks counted too."""
    limits = board.limits
    if submitter == ROOT:
        tasks, size = session.open_tasks - session.nested_tasks, session.open_bytes - session.nested_bytes
        return limits.tasks_max - tasks, limits.bytes_max - size
    tasks_max, bytes_max = limits.tasks_max + limits.nested_reserve, limits.bytes_max + (limits.nested_reserve << 10)
    return tasks_max - session.open_tasks, bytes_max - session.open_bytes


def _refuse_beyond(
    board: Board,
    session: Session,
    submitter: int,
    records: list[Record],
    room: int,
    bytes_room: int,
    too_many: str,
    now: int,
) -> list[Record]:
    """The records for which there is room (and those known already); the others are refused. One without arguments
    needs no room for them, one without descriptors is not one of too many."""
    text = f"queue full; try again after {board.limits.retry_after_ms} ms"
    kept = []
    for record in records:
        if record.seq in session.tasks or record.seq >> COUNTER_BITS != submitter:
            kept.append(record)
        elif too_many and record.blobs is not None:
            _refuse(board, session, record, EndKind.REFUSED, too_many, now, board.limits.retry_after_ms)
        elif room > 0 and (bytes_room > 0 or not (record.arguments or record.size)):
            room -= 1
            kept.append(record)
        else:
            _refuse(board, session, record, EndKind.REFUSED, text, now, board.limits.retry_after_ms)
    return kept


def _refuse(
    board: Board, session: Session, record: Record, kind: EndKind, text: str, now: int, retry_after_ms: int = 0
) -> None:
    """An end for a record that was never admitted: recorded, held by its submitter like any other."""
    if record.state == task.NEW and record.seq not in session.tasks:
        _open(board, session, record)
    record.dependencies = record.nested = None  # nothing was pinned for it yet
    failure = board.failure(session, record, kind, text, retry_after_ms=retry_after_ms)
    finish(board, session, record, End(record.seq, kind, failure), None, now)


def _open(board: Board, session: Session, record: Record) -> None:
    """The long way in: count it and give its submitter the hold."""
    session.tasks[record.seq] = record
    record.linked = True
    board.stats.submitted += 1
    session.open_tasks += 1
    size = len(record.arguments) + record.size
    session.open_bytes += size
    submitter = record.seq >> COUNTER_BITS
    if submitter != ROOT:
        session.nested_tasks += 1
        session.nested_bytes += size
    holder = session.holders.get(submitter)
    if submitter != ROOT and holder is not None:
        record.holds = 0
        record.pins = 1
        holder.held[record.seq] = 1


def _again(board: Board, session: Session, known: Record, record: Record) -> None:
    """A task sent again after a lost connection: it is known, and if it ended its end may have been lost on the way."""
    board.discard(record.blobs)
    if known.end is not None:
        board.outbox(session, known.seq >> COUNTER_BITS).append(known)


def _admit(board: Board, session: Session, holder: Holder, record: Record, now: int) -> None:
    """Everything that hangs on a task is tied here, and untied in ``finish``."""
    if record.size < 0:
        record.size = 0
    _open(board, session, record)
    option = session.options[record.options]
    if option.refused:
        _refuse(board, session, record, EndKind.REFUSED, option.refused, now)
        return
    tasks = session.tasks
    for dependency in record.dependencies or ():
        producer = tasks.get(dependency.seq)
        if producer is None or producer is record:
            text = f"an argument refers to object {dependency.seq:x}, which is not here: it was released or never made"
            _refuse(board, session, record, EndKind.LOST, text, now)
            return
    if record.nested:
        record.nested = holds.pin(session, record.nested, record.seq)
    failed = _depend(session, record) if record.dependencies else None
    if _adopt(session, record):
        record.cause = task.CANCELLED_WITH_CHILDREN
        finish(board, session, record, cancelled_end(board, session, record), None, now)
    elif failed is not None:
        finish(board, session, record, inherited_end(board, session, failed, record), None, now)
    elif record.waiting_for:
        record.state = WAITING
        record.queued_ns = now
        board.waiting += 1
    else:
        enqueue(board, session, record, now)


def _depend(session: Session, record: Record) -> Record | None:
    """Pin the producers of its arguments until it ends, and wait for those that have not ended. Returns one that
    failed."""
    failed = None
    for dependency in record.dependencies or ():
        producer = session.tasks[dependency.seq]
        producer.pins += 1
        producer.linked = True
        if producer.end is None:
            record.waiting_for += 1
            if producer.dependents is None:
                producer.dependents = []
            producer.dependents.append(record)
        elif producer.end.kind:
            failed = producer
    return failed


def _adopt(session: Session, record: Record) -> bool:
    """Note it with its parent, if that still runs. True: the parent is being cancelled with its children."""
    parent = session.tasks.get(record.parent) if record.parent else None
    if parent is None or parent.state == ENDED or parent is record:
        return False
    if parent.children is None:
        parent.children = []
    parent.children.append(record.seq)
    parent.linked = True
    return parent.cause >= task.CANCELLED_WITH_CHILDREN


def enqueue(board: Board, session: Session, record: Record, now: int) -> None:
    """It waits for a worker from now on."""
    record.state = QUEUED
    record.queued_ns = now
    option = session.options[record.options]
    board.queued += 1
    if record.seq >> COUNTER_BITS:
        queue = option.nested_queue
        queue.records.appendleft(record)
    else:
        queue = option.queue
        queue.records.append(record)
    board.enlist(queue, now)


def take_back(board: Board, session: Session, records: list[Record], now: int) -> None:
    """Assigned calls that have not started return to the front of their queues, in order; what was to end, ends."""
    board.assigned -= len(records)
    board.queued += len(records)
    for record in reversed(records):
        record.worker = record.number = 0
        record.state = QUEUED
        option = session.options[record.options]
        queue = option.nested_queue if record.seq >> COUNTER_BITS else option.queue
        queue.records.appendleft(record)
        board.enlist(queue, now)
    for record in records:
        if record.cause:
            finish(board, session, record, cancelled_end(board, session, record), None, now)


def cancelled_end(board: Board, session: Session, record: Record) -> End:
    """For a task that we end before it ran to its own end. A command's end is what was asked for, force or not."""
    if record.cause == task.TIMED_OUT:
        limit = session.options[record.options].wire.timeout_ns / 1e9
        kind, text = EndKind.TIMED_OUT, f"it ran longer than its timeout of {limit:g} s"
    elif record.cause == task.FORCED and record.state == ASSIGNED and not session.commands:
        kind, text = EndKind.CRASHED, "it was cancelled with force: its worker was killed"
    else:
        kind, text = EndKind.CANCELLED, "it was cancelled"
    return End(record.seq, kind, board.failure(session, record, kind, text), record.attempt)


def inherited_end(board: Board, session: Session, producer: Record, record: Record) -> End:
    """What became of an object becomes of those who needed it."""
    end = producer.end
    assert end is not None
    payload = end.payload
    if payload and not end.size:
        try:
            failure = _failure_decoder.decode(payload)
        except msgspec.DecodeError:
            return End(record.seq, end.kind, payload, record.attempt)
        if len(failure.notes) < NOTES_MAX:
            note = f"it never ran: {board.task_name(session, producer)}, whose result it needs, had failed"
            failure.notes = [*failure.notes, note]
            payload = _encode(failure)
    return End(record.seq, end.kind, payload, record.attempt)


def finish(board: Board, session: Session, record: Record, end: End, blobs: list[Any] | None, now: int) -> None:
    """The one end of a task, and of all that can no longer run because of it. The caller has taken it from its
    worker."""
    work: list[tuple[Record, End, list[Any] | None]] = [(record, end, blobs)]
    for record, end, blobs in work:  # grows while it is walked: a chain of a million is no recursion
        if record.state == ENDED:
            board.discard(blobs)
            continue
        _leave(board, session, record)
        if end.nested:
            end.nested = holds.pin(session, end.nested, record.seq)
        record.state = ENDED
        record.end = end
        board.stats.ended[end.kind] += 1
        size = len(record.arguments) + record.size
        session.open_tasks -= 1
        session.open_bytes -= size
        if record.seq >> COUNTER_BITS != ROOT:
            session.nested_tasks -= 1
            session.nested_bytes -= size
        board.discard(record.blobs)
        record.blobs = blobs
        record.linked = record.linked or blobs is not None
        record.arguments = b""
        record.size = record.waiting_for = 0
        record.children = None
        dependents, record.dependents = record.dependents, None
        for dependent in dependents or ():
            if dependent.state != WAITING:
                continue
            if end.kind:
                work.append((dependent, inherited_end(board, session, record, dependent), None))
                continue
            dependent.waiting_for -= 1
            if not dependent.waiting_for:
                board.waiting -= 1
                enqueue(board, session, dependent, now)
        held = [dependency.seq for dependency in record.dependencies or ()]
        held += record.nested or ()
        record.dependencies = record.nested = None
        _deliver(board, session, record)
        holds.unpin(board, session, held)


def _leave(board: Board, session: Session, record: Record) -> None:
    """Its place until now."""
    if record.state == WAITING:
        board.waiting -= 1
    elif record.state == QUEUED:
        option = session.options[record.options]
        (option.nested_queue if record.seq >> COUNTER_BITS else option.queue).dead += 1
        board.queued -= 1
    elif record.state == ASSIGNED:
        board.assigned -= 1
        record.worker = record.number = 0


def _deliver(board: Board, session: Session, record: Record) -> None:
    """To its submitter and to those who asked; what nobody holds goes as RELEASED, and is forgotten."""
    if not record.holds and not record.pins:
        end = record.end
        assert end is not None
        unneeded = end.nested
        record.end = End(record.seq, EndKind.RELEASED, b"", end.attempt, 0, end.ran_ns)
        board.discard(record.blobs)
        record.blobs = None
        session.tasks.pop(record.seq, None)
        if unneeded:
            holds.unpin(board, session, unneeded)
    submitter = record.seq >> COUNTER_BITS
    board.outbox(session, submitter).append(record)
    for other in session.wants.pop(record.seq, ()):
        board.outbox(session, other).append(record)
