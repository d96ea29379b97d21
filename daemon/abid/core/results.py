"""What workers say about their calls: ended, not started, blocked. The straight case is written out, as it is the
cost of a task; everything else goes through ``lifecycle.finish``."""

from __future__ import annotations

from typing import Any

from abi.wire.schema import ROOT, End, EndKind
from abid.core import lifecycle, recall
from abid.core.board import Board
from abid.core.retry import after_error
from abid.core.task import ENDED, Record
from abid.core.workers import Phase, Worker


def on_results(board: Board, worker: Worker, ends: list[End], now: int, blobs: dict[int, list[Any]] | None) -> None:
    """Ends of a worker's calls, in the order of their starts."""
    session = worker.session
    if worker.phase == Phase.GONE or session.closed:
        board.stats.stale += len(ends)
        for held in (blobs or {}).values():
            board.discard(held)
        return
    board.unblock(worker, now)  # nothing more comes from a call that waits
    outstanding = worker.outstanding
    take = outstanding.popleft
    deliver = board.outbox(session, ROOT).append
    functions = session.functions
    known_function = -1
    run_time = None
    estimate = samples = straight = size = index = 0
    for end in ends:
        index += 1
        if outstanding and outstanding[0].seq == end.seq:
            record = take()
        else:
            found = _out_of_order(worker, end.seq)
            if found is None:
                board.stats.stale += 1
                board.discard(blobs.get(index - 1) if blobs else None)
                continue
            record = found
        if record.function != known_function:
            if run_time is not None:
                run_time.estimate_ns = estimate
                run_time.samples += samples
                samples = 0
            known_function = record.function
            run_time = functions[known_function].run_time
            estimate = run_time.estimate_ns
        # functions.learn, written out.
        ran = end.ran_ns
        samples += 1
        if not estimate:
            estimate = ran if ran > 0 else 1
        elif ran > estimate << 1:
            estimate += (estimate >> 2) + 1
        elif ran < estimate >> 2:
            estimate = estimate >> 1 or 1
        else:
            estimate = estimate + (ran - estimate >> 3) or 1
        if end.kind or record.linked or not record.holds or end.nested or blobs:
            _settle(board, worker, record, end, blobs.pop(index - 1, None) if blobs else None, now)
            continue
        record.state = ENDED
        record.end = end
        size += len(record.arguments)
        record.arguments = b""
        straight += 1
        deliver(record)
    if run_time is not None:
        run_time.estimate_ns = estimate
        run_time.samples += samples
    board.assigned -= straight
    board.stats.ended[0] += straight
    session.open_tasks -= straight
    session.open_bytes -= size
    worker.stuck = False
    worker.running = 0
    if len(outstanding) * worker.each_ns < board.limits.batch_ns:
        board.touch(worker)


def _out_of_order(worker: Worker, seq: int) -> Record | None:
    """An end that is not of the oldest call: an honest worker sends none, so it is looked for and not relied on."""
    for record in worker.outstanding:
        if record.seq == seq:
            worker.outstanding.remove(record)
            return record
    return None


def _settle(board: Board, worker: Worker, record: Record, end: End, blobs: list[Any] | None, now: int) -> None:
    """One result on which something hangs."""
    session = worker.session
    option = session.options[record.options].wire
    if option.max_calls:
        worker.calls[record.function] = worker.calls.get(record.function, 0) + 1
        worker.last_call = worker.last_call or worker.calls[record.function] >= option.max_calls
    if end.kind:
        if record.cause:
            board.discard(blobs)
            lifecycle.finish(board, session, record, lifecycle.cancelled_end(board, session, record), None, now)
            return
        if end.kind not in (EndKind.ERROR, EndKind.CANCELLED):
            end.kind = EndKind.ERROR  # the other ends are ours to give
        if end.kind == EndKind.ERROR and after_error(
            end.retry, option.retry_exceptions, option.max_retries, record.charged
        ):
            board.discard(blobs)
            record.charged += 1
            record.attempt += 1
            board.stats.retries += 1
            lifecycle.take_back(board, session, [record], now)
            return
    lifecycle.finish(board, session, record, end, blobs, now)


def on_blocked(board: Board, worker: Worker, number: int, now: int) -> None:
    """The running call waits for others: its processors are free meanwhile, and what is behind it goes elsewhere.

    Race: the call's result overtakes nothing, since both travel on one socket in order; a number that is not
    outstanding is of a call whose worker we think gone, and is ignored.
    """
    if worker.phase == Phase.GONE or worker.find(number) is None:
        return
    worker.running = number
    worker.stuck = True
    board.block(worker, now)
    recall.behind(board, worker)


def on_unblocked(board: Board, worker: Worker, number: int, now: int) -> None:
    """The call goes on, whether or not a processor is free."""
    if worker.phase != Phase.GONE and worker.find(number) is not None:
        board.unblock(worker, now)
