"""Why a task waits, in one sentence."""

from __future__ import annotations

from abi.ids import COUNTER_BITS
from abid.core import task
from abid.core.board import Board
from abid.core.queues import Queue
from abid.core.resources import amount_text, bare_amount_text, gpus_text
from abid.core.session import Session
from abid.core.task import Record

PRIORITIES = ("low", "normal", "high", "critical")
HOLDERS_MAX = 3
"""Tasks named as holders of what is lacking: enough to act on."""


def why(board: Board, session: Session, record: Record, now: int) -> str:
    if record.state == task.WAITING:
        return f"waits for {record.waiting_for} object{'s' if record.waiting_for != 1 else ''}"
    if record.state == task.ASSIGNED:
        return _assigned(board, record, now)
    if record.state != task.QUEUED:
        return "has ended" if record.state == task.ENDED else "has not been admitted"
    option = session.options[record.options]
    queue = option.nested_queue if record.seq >> COUNTER_BITS else option.queue
    if board.draining:
        return "the node is draining: it starts nothing but children of what runs"
    if session.stalled:
        return "its program does not read its results: nothing of it starts until it does"
    waited = (now - record.queued_ns) / 1e9
    return f"{_lack(board, session, queue)}; {_place(queue, record)}; waiting for {waited:.1f} s"


def _assigned(board: Board, record: Record, now: int) -> str:
    worker = board.workers.get(record.worker)
    if worker is None:
        return "its worker is gone"
    if worker.running == record.number:
        state = "is cancelled and about to end" if record.cause else "waits for others" if worker.blocked else "runs"
        return f"{state} on worker {worker.number} for {max(0, now - worker.since) / 1e9:.1f} s"
    before = sum(other.number < record.number for other in worker.outstanding)
    if before:
        return f"is at worker {worker.number}, behind {before} other{'s' if before != 1 else ''}"
    return f"{'is cancelled and about to end' if record.cause else 'runs'} on worker {worker.number}"


def _lack(board: Board, session: Session, queue: Queue) -> str:
    resources = board.resources
    for name, amount in queue.shape.needs:
        if resources.free[name] < amount:
            free = bare_amount_text(name, max(0, resources.free[name]))
            total = bare_amount_text(name, resources.total[name])
            return f"waits for {amount_text(name, amount)}; {free} of {total} are free{_held_by(board, name)}"
    if queue.shape.gpus > len(resources.free_gpus) and not session.idle.get(queue.shape.gpus):
        return f"waits for {gpus_text(queue.shape.gpus)}; {len(resources.free_gpus)} of {len(resources.gpus)} are free"
    if len(board.workers) >= board.limits.processes_max and not session.idle.get(queue.shape.gpus):
        return f"waits for one of {board.limits.processes_max} worker processes"
    return "waits for its turn"


def _held_by(board: Board, name: str) -> str:
    names: list[str] = []
    for worker in board.workers.values():
        if worker.shape is None or not worker.outstanding or not any(name == need for need, _ in worker.shape.needs):
            continue
        label = board.task_name(worker.session, worker.outstanding[0])
        if label not in names:
            names.append(label)
    if not names:
        return ""
    more = f" and {len(names) - HOLDERS_MAX} more" if len(names) > HOLDERS_MAX else ""
    return f"; held by {', '.join(names[:HOLDERS_MAX])}{more}"


def _place(queue: Queue, record: Record) -> str:
    """Its place, without a walk over a million: only the first thousand are counted."""
    level = PRIORITIES[queue.priority]
    among = f"of {len(queue)} in the queue{'' if level == 'normal' else f' at priority {level}'}"
    place = 0
    for other in queue.records:
        if other is record:
            return f"{'first' if place == 0 else f'number {place + 1}'} {among}"
        place += other.state == task.QUEUED
        if place >= 1000:
            break
    return f"beyond the 1000th {among}"
