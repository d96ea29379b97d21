"""Who starts next, and where.

One pass costs the number of queues and workers, never the number of tasks; a pick hands out a whole batch. Order: the
user who had least (see ``queues.Account``), the session that had least, nested before others, priority with aging.

A worker is kept busy across the round trip: while what it has will last less than half a batch, it gets more of the
same session and shape; and one call waits behind another that is longer than a batch, but not long. That must not
starve others: nobody is topped up with what an earlier queue in the order lacks, except within a slack that spares both
sides the change of workers; and what waits behind a call is taken back when a worker has nothing to do.
"""

from __future__ import annotations

from typing import Final

from abi.ids import COUNTER_BITS
from abid.core import cancel, deadlock, departure, effects, recall
from abid.core.board import Board
from abid.core.functions import CALL_NS
from abid.core.queues import Queue
from abid.core.resources import CPUS
from abid.core.task import ASSIGNED, QUEUED, Record
from abid.core.workers import Phase, Worker

SPAWN_WORTH_NS: Final = 2_000_000
"""A fork costs as much: less work than this waits for a worker that is there already."""

FAIR_SLACK_NS: Final = 50_000_000
"""A processor may stay with a session for so long beyond its turn, to spare changing worker with every batch."""

AHEAD_NS: Final = FAIR_SLACK_NS
"""A call no longer than this has another put behind it: the round trip between the two, half a millisecond, would show.
Behind a longer one it would not, and the other would only wait."""

CALLS_MAX: Final = 512
"""Calls outstanding at a worker: two frames of descriptors, and 1.5 ms of the smallest calls."""

PRIORITY_SLACK: Final = 0.5

PROCESS: Final = "processes"


Unmet = tuple[Queue, frozenset[str], bool]
"""A queue with tasks left, what it lacks, and whether that is reserved for it."""


def schedule(board: Board, now: int) -> None:
    """Hand out all that can be handed out now."""
    resting = departure.settle(board, now)
    unmet = _hand_out(board, now) if board.active else []
    deadlock.watch(board, unmet, now)
    for worker in resting:
        if worker.number in board.idle and not board.draining:
            recall.relieve(board, worker)


def _hand_out(board: Board, now: int) -> list[Unmet]:
    """From the queues to workers. Returns the queues that have tasks left."""
    queues = []
    for queue in list(board.active):
        if queue.head() is None:
            board.delist(queue)
        elif board.draining and not queue.nested:
            continue  # its program takes it to the next daemon; but a running parent cannot end without its children
        elif not queue.session.stalled:
            queues.append(queue)
    unmet = _reserved(board, queues, now)
    shares: dict[Queue, int] = {}
    while queues:
        queue = (
            queues[0] if len(queues) == 1 else min(queues, key=lambda queue: _order(queue, now, board.limits.aging_ns))
        )
        if not _is_reserved_from(queue, unmet):
            if queue not in shares:
                shares[queue] = _share(board, queue)
            if _start(board, queue, shares[queue], now):
                if queue.head() is None:
                    board.delist(queue)
                    queues.remove(queue)
                continue
            if len(queue) and not queue.shape.alone:
                _top_up(board, queue, shares[queue], unmet, now)
        queues.remove(queue)
        if queue.head() is None:
            board.delist(queue)
        else:
            unmet.append((queue, _lacking(board, queue), False))
    return unmet


def _order(queue: Queue, now: int, aging_ns: int) -> tuple[int, int, int, int, bool, float, int]:
    session = queue.session
    user, own = session.user_account, session.account
    return (
        user.at(now), user.held, own.at(now), own.held, not queue.nested,
        -_priority(queue, now, aging_ns), queue.records[0].queued_ns,
    )  # fmt: skip


def _priority(queue: Queue, now: int, aging_ns: int) -> float:
    return queue.priority + (now - queue.records[0].queued_ns) / aging_ns


def _reserved(board: Board, queues: list[Queue], now: int) -> list[Unmet]:
    """The one queue for which room is kept: of those that do not fit, the one that has been given nothing for longest,
    beyond ``aging_ns``.

    It stays that one until it has started a task, and then starts before all others: what was kept free for it would
    otherwise go to whoever is earlier in the order, again and again.
    """
    oldest = board.reserved if board.reserved in queues else None
    if oldest is None:
        waited = board.limits.aging_ns
        for queue in queues:
            age = now - max(queue.records[0].queued_ns, queue.served_ns)
            if age > waited and not board.resources.fits(queue.shape):
                oldest, waited = queue, age
        board.reserved = oldest
    elif board.resources.fits(oldest.shape):
        board.reserved = None
        _start(board, oldest, _share(board, oldest), now)
        if oldest.head() is None:
            board.delist(oldest)
            queues.remove(oldest)
        return []
    return [(oldest, board.resources.lacking(oldest.shape), True)] if oldest is not None else []


def _is_reserved_from(queue: Queue, unmet: list[Unmet]) -> bool:
    """Whether starting this one would take what is reserved for another. Never from nested tasks: the one for whom room
    is kept may wait for a parent to give its room back, and the parent for these."""
    if not unmet or queue.nested:
        return False
    other, lacking, strict = unmet[0]
    return strict and other is not queue and any(name in lacking for name, _ in queue.shape.needs)


def _lacking(board: Board, queue: Queue) -> frozenset[str]:
    return board.resources.lacking(queue.shape) or frozenset({PROCESS})


def _spawnable(board: Board, queue: Queue) -> int:
    """Processes that may still be forked for this queue."""
    most = board.limits.processes_max * (2 if queue.nested else 1) - len(board.workers)
    if queue.shape.gpus:
        most = min(most, len(board.resources.free_gpus) // queue.shape.gpus)
    return max(0, most)


def _share(board: Board, queue: Queue) -> int:
    """At most so many for one worker, so that few tasks spread over all that can take them; 0: no new worker is worth
    its fork, and those there are take all."""
    idle = len(queue.session.idle.get(queue.shape.gpus, ()))
    busy = 0
    for worker in queue.session.workers.values():
        if worker.shape is queue.shape and _can_take_more(board, worker):
            busy += 1
    spawnable = _spawnable(board, queue) if _is_worth_a_fork(queue, idle + busy) else 0
    takers = board.resources.count(queue.shape, idle + spawnable) + busy
    return -(-len(queue) // max(1, takers))


def _is_worth_a_fork(queue: Queue, takers: int) -> bool:
    if not takers or queue.shape.alone:
        return True
    estimate = queue.session.functions[queue.records[0].function].run_time.estimate_ns
    return not estimate or len(queue) * (estimate + CALL_NS) > SPAWN_WORTH_NS * takers


def _can_take_more(board: Board, worker: Worker) -> bool:
    count = len(worker.outstanding)
    return (
        count > 0
        and (count * worker.each_ns < board.limits.batch_ns >> 1 or (count == 1 and worker.each_ns <= AHEAD_NS))
        and not worker.stuck
        and not worker.recall_asked
        and worker.phase == Phase.LIVE
        and not worker.last_call
    )


def _start(board: Board, queue: Queue, share: int, now: int) -> bool:
    """One batch to a worker that has nothing. False when there is no such worker, or no room."""
    session, shape = queue.session, queue.shape
    if not board.resources.fits(shape) or (shape.cpus and board.resources.free[CPUS] <= 0):
        return False
    idle = session.idle.get(shape.gpus)
    if idle:
        worker = idle[next(reversed(idle))]  # the last used: its caches are warm, and the others may leave
        departure.wake(board, worker)
    else:
        if not _spawnable(board, queue):
            _make_room(board, queue, now)
            return False
        if not _is_worth_a_fork(
            queue, sum(_can_take_more(board, w) for w in session.workers.values() if w.shape is shape)
        ):
            return False
        worker = departure.spawn(board, session, shape.gpus)
    board.take_shape(worker, shape, now)
    worker.stuck = False
    batch = _fill(queue, worker, board.limits.batch_ns, 1 if shape.alone else share)
    option = session.options[batch[0].options].wire
    if option.timeout_ns:
        cancel.watch(board, worker, batch[0], option.timeout_ns, now)
    if not option.max_retries:
        board.emit(effects.Note(session, batch[0].seq >> COUNTER_BITS, [batch[0].seq]))
    _dispatch(board, queue, worker, batch, now)
    return True


def _make_room(board: Board, queue: Queue, now: int) -> None:
    """No process or card is left: a worker that rests, and could not serve this queue, goes."""
    if board.leaving:
        return
    for worker in board.idle.values():
        if worker.session is not queue.session or len(worker.gpu_ids) != queue.shape.gpus:
            departure.stop(board, worker, now)
            return


def _top_up(board: Board, queue: Queue, share: int, unmet: list[Unmet], now: int) -> None:
    """More for workers that will run empty soon. They hold the shape's resources already."""
    if _must_yield(board, queue, unmet, now):
        return
    for worker in queue.session.workers.values():
        if worker.shape is queue.shape and _can_take_more(board, worker):
            room = board.limits.batch_ns - len(worker.outstanding) * worker.each_ns
            batch = _fill(queue, worker, room, min(share, CALLS_MAX - len(worker.outstanding)))
            if not batch:
                return
            _dispatch(board, queue, worker, batch, now)
            if queue.head() is None:
                return


def _must_yield(board: Board, queue: Queue, unmet: list[Unmet], now: int) -> bool:
    """Whether somebody earlier in the order waits for what these workers hold."""
    session = queue.session
    for other, lacking, strict in unmet:
        if other is queue:
            continue
        if PROCESS not in lacking and not any(name in lacking for name, _ in queue.shape.needs):
            continue
        if strict:
            return not queue.nested
        theirs = other.session
        slack = FAIR_SLACK_NS * (queue.shape.cpus or 1)
        if theirs.user_account is not session.user_account:
            late = session.user_account.at(now) - theirs.user_account.at(now) > slack
        elif theirs is not session:
            late = session.account.at(now) - theirs.account.at(now) > slack
        elif other.nested != queue.nested:
            late = other.nested
        else:
            aging_ns = board.limits.aging_ns
            late = _priority(other, now, aging_ns) > _priority(queue, now, aging_ns) + PRIORITY_SLACK
        if late:
            return True
    return False


def _fill(queue: Queue, worker: Worker, room_ns: int, most: int) -> list[Record]:
    """Take from the queue what fills ``room_ns`` of learned work. A call of unknown length goes alone, to a worker with
    nothing else. At least one for a worker with nothing, if the queue has one."""
    records = queue.records
    functions = queue.session.functions
    outstanding = worker.outstanding
    take = records.popleft
    batch: list[Record] = []
    append = batch.append
    count = len(outstanding)
    total = count * worker.each_ns
    end = total + room_ns
    most = min(most, CALLS_MAX)
    at = worker.number
    number = worker.number_next
    known_function = -1
    cost = 0
    while records and most:
        record = take()
        if record.state != QUEUED:
            queue.dead -= 1
            continue
        if record.function != known_function:
            known_function = record.function
            cost = functions[known_function].run_time.estimate_ns
            if not cost:
                if count or batch:
                    records.appendleft(record)
                    break
                most = 1
                cost = AHEAD_NS << 1
            cost += CALL_NS
        record.state = ASSIGNED
        record.worker = at
        record.number = number
        number += 1
        most -= 1
        append(record)
        total += cost
        if total >= end:
            break
    if batch:
        worker.number_next = number
        outstanding.extend(batch)
        worker.each_ns = total // len(outstanding)
    return batch


def _dispatch(board: Board, queue: Queue, worker: Worker, batch: list[Record], now: int) -> None:
    queue.served_ns = now
    board.queued -= len(batch)
    board.assigned += len(batch)
    board.stats.dispatched += len(batch)
    board.emit(effects.Dispatch(worker, batch))
