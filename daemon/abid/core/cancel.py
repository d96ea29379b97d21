"""Cancelling, and time limits: both end a task that may be running."""

from __future__ import annotations

import heapq
from typing import Final

from abid.core import lifecycle, recall, task
from abid.core.board import Board
from abid.core.session import Session
from abid.core.task import ASSIGNED, ENDED, Record
from abid.core.workers import Phase, Worker

LOOK_AGAIN_NS: Final = 5_000_000
"""When a watched call has not been seen to start, its clock is looked at again after this."""
LEAVE_NS: Final = 5_000_000_000
"""For what user code registered with ``atexit``; a child process that it would wait for may never end."""
NO_CALL: Final = 0
"""In a clock that is not of a call, but of its worker's leaving."""
CLOCKS_SPARE: Final = 64
"""Clocks of ended calls that are not worth a look at all of them."""


def on_cancel(board: Board, session: Session, seqs: list[int], force: bool, recursive: bool, now: int) -> None:
    """What waits ends at once; what runs is interrupted or killed; what ended stays as it is.

    A task is interrupted and no more: it may catch that and go on. A command is also killed, when its grace is over.
    """
    if session.closed:
        return
    work = list(seqs)
    for seq in work:
        record = session.tasks.get(seq)
        if record is None or record.state == ENDED:
            continue
        if recursive and record.children:
            work.extend(record.children)
        cause = task.FORCED if force else task.CANCELLED_WITH_CHILDREN if recursive else task.CANCELLED_ALONE
        _cancel(board, session, record, cause, now)


def _cancel(board: Board, session: Session, record: Record, cause: int, now: int) -> None:
    if record.cause >= cause:  # twice: nothing more; with force after without: the kill
        return
    record.cause = cause
    record.linked = True
    if record.state != ASSIGNED:
        lifecycle.finish(board, session, record, lifecycle.cancelled_end(board, session, record), None, now)
        return
    worker = board.workers.get(record.worker)
    if worker is not None:
        # It may run, may have ended, or may not have begun: the recall tells which (see ``recall``).
        recall.ask(board, worker)
        if session.commands and cause != task.FORCED:
            heapq.heappush(board.clocks, (now + board.limits.interrupt_grace_ns, worker.number, record.number, True))


def watch(board: Board, worker: Worker, record: Record, timeout_ns: int, now: int) -> None:
    """Start the clock of a call that was just dispatched.

    A call that ends leaves its clock behind, perhaps for days. A worker runs one watched call at a time, so when there
    are many more clocks than workers most are such, and go: the heap stays as small as the host.
    """
    if len(board.clocks) > 2 * len(board.workers) + CLOCKS_SPARE:
        board.clocks[:] = [clock for clock in board.clocks if _is_needed(board, clock)]
        heapq.heapify(board.clocks)
    heapq.heappush(board.clocks, (now + timeout_ns, worker.number, record.number, False))


def watch_leaving(board: Board, worker: Worker, now: int) -> None:
    """Start the clock of a worker that was told to leave: others wait for its place."""
    heapq.heappush(board.clocks, (now + LEAVE_NS, worker.number, NO_CALL, True))


def _is_needed(board: Board, clock: tuple[int, int, int, bool]) -> bool:
    _, number, call, _ = clock
    worker = board.workers.get(number)
    return worker is not None and (call == NO_CALL or worker.find(call) is not None)


def on_timer(board: Board, now: int) -> None:
    """Clocks that ran out. They start at the call's start, as ``on_progress`` told it."""
    clocks = board.clocks
    while clocks and clocks[0][0] <= now:
        _, number, call, kill = heapq.heappop(clocks)
        worker = board.workers.get(number)
        if worker is not None and call == NO_CALL:
            recall.kill(board, worker)
            continue
        record = worker.find(call) if worker is not None else None
        if worker is None or record is None or worker.phase == Phase.GONE:
            continue
        if kill:
            recall.kill(board, worker)
            continue
        if worker.running != call:
            heapq.heappush(clocks, (now + LOOK_AGAIN_NS, number, call, False))
            continue
        due = worker.since + worker.session.options[record.options].wire.timeout_ns
        if due > now:
            heapq.heappush(clocks, (due, number, call, False))
            continue
        if not record.cause:
            record.cause = task.TIMED_OUT
            record.linked = True
            recall.strike(board, worker, record)
        heapq.heappush(clocks, (now + board.limits.interrupt_grace_ns, number, call, True))
