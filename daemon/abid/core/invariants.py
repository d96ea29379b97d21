"""What always holds between two events. Slow on purpose: it looks at everything and believes no counter."""

from __future__ import annotations

from abi.errors import AbiError
from abi.ids import COUNTER_BITS
from abi.wire.schema import EndKind
from abid.core import task
from abid.core.board import Board
from abid.core.resources import CPUS
from abid.core.session import Session
from abid.core.task import Record
from abid.core.workers import Phase


class InvariantError(AbiError):
    """A rule of the core is broken: a bug of ours."""


def check(board: Board) -> None:
    """Raises InvariantError naming what is broken."""
    places = _places(board)
    counts = [0, 0, 0, 0, 0]
    for session in board.sessions.values():
        if not session.closed:
            _check_session(board, session, places, counts)
    if board.waiting != counts[task.WAITING]:
        raise InvariantError(f"waiting is {board.waiting}, there are {counts[task.WAITING]}")
    if board.queued != counts[task.QUEUED]:
        raise InvariantError(f"queued is {board.queued}, there are {counts[task.QUEUED]}")
    if board.assigned != counts[task.ASSIGNED]:
        raise InvariantError(f"assigned is {board.assigned}, there are {counts[task.ASSIGNED]}")
    opened = sum(counts[: task.ENDED])
    ended = sum(board.stats.ended)
    if not (board.stats.submitted == opened + ended):
        raise InvariantError(f"{board.stats.submitted} submitted, {opened} open, {ended} ended")
    _check_resources(board)
    _check_workers(board)
    _check_queues(board)


def _places(board: Board) -> dict[int, list[str]]:
    """Where each unended record is, by the record's identity."""
    places: dict[int, list[str]] = {}
    for session in board.sessions.values():
        for queue in session.queues.values():
            dead = 0
            for record in queue.records:
                if record.state == task.QUEUED:
                    places.setdefault(id(record), []).append("queue")
                else:
                    dead += 1
            if dead != queue.dead:
                raise InvariantError(f"{queue!r} counts {queue.dead} dead, there are {dead}")
            if not (queue.listed or not len(queue)):
                raise InvariantError(f"{queue!r} holds tasks and is not listed")
    for worker in board.workers.values():
        last = 0
        for record in worker.outstanding:
            places.setdefault(id(record), []).append(f"worker {worker.number}")
            if not (record.number > last):
                raise InvariantError(f"{worker!r} has call {record.number} after {last}")
            last = record.number
            if record.worker != worker.number:
                raise InvariantError(f"{record!r} thinks that it is at worker {record.worker}")
    return places


def _check_session(board: Board, session: Session, places: dict[int, list[str]], counts: list[int]) -> None:
    pins: dict[int, int] = {}
    opened = size = nested = nested_size = 0
    for record in session.tasks.values():
        counts[record.state] += record.options >= 0 and record.state != task.ENDED
        if record.state != task.ENDED:
            opened += 1
            own = len(record.arguments) + record.size
            size += own
            if record.seq >> COUNTER_BITS:
                nested += 1
                nested_size += own
        _check_record(record, places.get(id(record), []))
        for dependency in record.dependencies or ():
            pins[dependency.seq] = pins.get(dependency.seq, 0) + 1
        held = [*(record.nested or ()), *((record.end.nested if record.end else None) or ())]
        for seq in held:
            pins[seq] = pins.get(seq, 0) + 1
    for holder in session.holders.values():
        for seq, count in holder.held.items():
            if seq not in session.tasks:
                raise InvariantError(f"submitter {holder.submitter} holds {seq:x}, which was forgotten")
            pins[seq] = pins.get(seq, 0) + count
    for seq, record in session.tasks.items():
        if record.pins != pins.get(seq, 0):
            raise InvariantError(f"{record!r} has {record.pins} pins, {pins.get(seq, 0)} are accounted for")
    if opened != session.open_tasks:
        raise InvariantError(f"{session!r} has {opened} open tasks")
    if size != session.open_bytes:
        raise InvariantError(f"{session!r} counts {session.open_bytes} bytes, there are {size}")
    if (nested, nested_size) != (session.nested_tasks, session.nested_bytes):
        raise InvariantError(f"{session!r} counts {session.nested_tasks} nested tasks, there are {nested}")


def _check_record(record: Record, places: list[str]) -> None:
    expected = 1 if record.state in (task.QUEUED, task.ASSIGNED) else 0
    if not (len(places) == expected):
        raise InvariantError(f"{record!r} is in {places}")
    if expected:
        where = "queue" if record.state == task.QUEUED else "worker"
        if not (places[0].startswith(where)):
            raise InvariantError(f"{record!r} is in {places}")
    if not (record.holds >= 0 and record.pins >= 0):
        raise InvariantError(f"{record!r} is held {record.holds} and pinned {record.pins} times")
    ended = record.state == task.ENDED
    if not (ended == (record.end is not None)):
        raise InvariantError(f"{record!r} has the end {record.end}")
    if not ((record.state == task.WAITING) == (record.waiting_for > 0)):
        raise InvariantError(f"{record!r} waits for {record.waiting_for}")
    if ended:
        kept = record.arguments or record.size or record.dependencies or record.nested or record.dependents
        if kept:
            raise InvariantError(f"{record!r} keeps what only its start needs")
        if not (record.holds + record.pins > 0):
            raise InvariantError(f"{record!r} is held by nobody and is kept")
        if not (record.end is not None and record.end.kind != EndKind.RELEASED):
            raise InvariantError(f"{record!r} is held and was released")
    hanging = record.dependencies or record.nested or record.dependents or record.blobs or record.cause
    if (record.seq >> COUNTER_BITS or hanging) and not record.linked:
        raise InvariantError(f"{record!r} would end by the short way with something hanging on it")


def _check_resources(board: Board) -> None:
    used = dict.fromkeys(board.resources.total, 0)
    cards = list(board.resources.free_gpus)
    for worker in board.workers.values():
        cards += worker.gpu_ids
        for name, amount in worker.shape.needs if worker.shape else ():
            if not (worker.blocked and name == CPUS):
                used[name] += amount
    for name, total in board.resources.total.items():
        free = board.resources.free[name]
        if not (free + used[name] == total):
            raise InvariantError(f"{name}: {free} free and {used[name]} used of {total}")
        if not (free >= 0 or name == CPUS):
            raise InvariantError(f"{name}: {free} free")
    if not (sorted(cards) == sorted(board.resources.gpus)):
        raise InvariantError(f"cards: {cards} of {board.resources.gpus}")
    for user, account in board.users.items():
        held = sum(s.account.held for s in board.sessions.values() if s.user == user)
        if account.held != held:
            raise InvariantError(f"user {user} holds {account.held} units, the sessions {held}")


def _check_workers(board: Board) -> None:
    leaving = 0
    for number, worker in board.workers.items():
        if not (number == worker.number and worker.phase != Phase.GONE):
            raise InvariantError(f"{worker!r} is listed as {number}")
        leaving += worker.phase == Phase.LEAVING
        resting = number in board.idle
        if not (resting == (number in worker.session.idle.get(len(worker.gpu_ids), {}))):
            raise InvariantError(f"{worker!r} half rests")
        if resting and (worker.outstanding or worker.shape):
            raise InvariantError(f"{worker!r} rests and holds something")
        busy = bool(worker.outstanding)
        if not (not busy or worker.shape is not None):
            raise InvariantError(f"{worker!r} has calls and no resources")
        if not (busy or worker.touched or worker.shape is None):
            raise InvariantError(f"{worker!r} has no calls and keeps resources")
    if board.leaving != leaving:
        raise InvariantError(f"{board.leaving} leave, there are {leaving}")
    if not (all(number in board.workers for number in board.idle)):
        raise InvariantError("a worker rests that is gone")


def _check_queues(board: Board) -> None:
    for queue in board.active:
        if not (queue.listed and not queue.session.closed):
            raise InvariantError(f"{queue!r} is active")
    if not (len(board.active) == len({id(queue) for queue in board.active})):
        raise InvariantError("a queue is active twice")
