"""Taking back what a worker has been given and has not started.

Why it is safe (asymmetric Dekker; the shell's half is in the slot page):

1. We emit ``Recall``. The shell raises the page's EPOCH, fences, and reads RUNNING: ``on_recalled(running)``.
2. A worker, before a call, stores RUNNING = number and then looks at EPOCH. Either our read sees its number, or it sees
   our epoch and backs off; both may happen, neither cannot.
3. ``running`` = n: calls start in order, so those before n have finished (their results are on the way: they stay
   outstanding), those after n cannot start any more: they are ours again at once.
4. n may have seen our epoch after all and backed off: ``DROPPED(n)`` says so, and n is ours again too.
5. Between ``Recall`` and its answer the worker is given nothing: what is sent after the epoch was raised starts, and
   the answer would count it among what was taken back. So it would run twice.
6. ``running`` = 0: the worker is between calls, and how far it came we cannot know; taking everything back would run
   finished calls twice. But it will look at EPOCH before its next call and send DROPPED for that one, which tells:
   from it on, everything up to the number of the recall is ours. If it has no next call, results for all are on their
   way.
7. A second recall may come before the DROPPED of the first is read. What was sent between the two bears the epoch of
   the first, and may have started since: that DROPPED says nothing of it. So each recall leaves its number as a border.
"""

from __future__ import annotations

from typing import Final

from abid.core import effects, lifecycle, task
from abid.core.board import Board
from abid.core.task import Record
from abid.core.workers import Phase, Worker

LONG_NS: Final = 3_000_000
"""A call that runs so much beyond what was learned has others behind it recalled: two full batches, and far above the
noise of a busy machine."""

UNEASY_NS: Final = 500_000
"""The same, when somebody has nothing to do."""

WORTH_NS: Final = 200_000
"""Less learned work than this behind a running call is not worth taking back for a worker that has nothing: it takes
half as long to do so."""


def behind(board: Board, worker: Worker) -> None:
    """Ask once for whatever stands behind the running call."""
    outstanding = worker.outstanding
    if outstanding and outstanding[-1].number != worker.running and not worker.recall_asked:
        ask(board, worker)


def ask(board: Board, worker: Worker) -> None:
    if not worker.recall_asked and worker.phase != Phase.GONE:
        worker.recall_asked = True
        board.emit(effects.Recall(worker))


def relieve(board: Board, idle: Worker) -> None:
    """This worker has nothing to do, and no queue has anything for it: whoever has most behind its running call shares
    that."""
    most, busiest = WORTH_NS, None
    for worker in idle.session.workers.values():
        behind_ns = (len(worker.outstanding) - 1) * worker.each_ns
        if behind_ns > most and not worker.recall_asked and len(worker.gpu_ids) == len(idle.gpu_ids):
            most, busiest = behind_ns, worker
    if busiest is not None and busiest.shape is not None and board.resources.fits(busiest.shape):
        ask(board, busiest)


def on_progress(board: Board, worker: Worker, running: int, since: int, now: int) -> None:
    """The shell read the page."""
    if worker.phase == Phase.GONE:
        return
    worker.running, worker.since = running, since
    patience = UNEASY_NS if worker.session.idle.get(len(worker.gpu_ids)) else LONG_NS
    if (
        running
        and now - since > patience + (worker.each_ns << 1)
        and len(worker.outstanding) > 1
        and worker.recalled_to < worker.number_next - 1
    ):
        worker.stuck = True
        behind(board, worker)


def on_recalled(board: Board, worker: Worker, running: int, since: int, now: int) -> None:
    """The answer to ``Recall``."""
    if worker.phase == Phase.GONE:
        return
    worker.recall_asked = False
    worker.recalled_to = worker.number_next - 1
    borders = worker.borders
    while borders and (not worker.outstanding or borders[0] < worker.outstanding[0].number):
        borders.popleft()
    borders.append(worker.recalled_to)
    board.touch(worker)
    worker.running, worker.since = running, since
    if not running:
        return
    if now - since > UNEASY_NS + (worker.each_ns << 1):
        worker.stuck = True
    _take_back(board, worker, running + 1, worker.recalled_to, now)
    record = worker.find(running)
    if record is not None and record.cause:
        strike(board, worker, record)


def on_dropped(board: Board, worker: Worker, numbers: list[int], now: int) -> None:
    """The worker found this call recalled, and with it all that followed up to that recall."""
    if worker.phase == Phase.GONE:
        return
    for number in numbers:
        border = next((border for border in worker.borders if border >= number), 0)
        if border and worker.find(number) is not None:
            _take_back(board, worker, number, border, now)
            worker.stuck = False
    worker.running = 0
    board.touch(worker)


def _take_back(board: Board, worker: Worker, first: int, last: int, now: int) -> None:
    taken: list[Record] = []
    kept: list[Record] = []
    for record in worker.outstanding:
        (taken if first <= record.number <= last else kept).append(record)
    if not taken:
        return
    worker.outstanding.clear()
    worker.outstanding.extend(kept)
    board.stats.recalled += len(taken)
    board.touch(worker)
    lifecycle.take_back(board, worker.session, taken, now)


def strike(board: Board, worker: Worker, record: Record) -> None:
    """The call runs, and is to end."""
    if record.cause == task.FORCED:
        kill(board, worker)
    else:
        board.emit(effects.Interrupt(worker, record.number))


def kill(board: Board, worker: Worker) -> None:
    if worker.phase != Phase.GONE and not worker.killed:
        worker.killed = True
        if worker.phase == Phase.LIVE:
            worker.phase = Phase.LEAVING
            board.leaving += 1
        board.emit(effects.Kill(worker))
