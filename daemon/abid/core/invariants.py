"""What always holds between two events. Slow on purpose: it looks at everything and believes no counter."""

from __future__ import annotations

from abi.errors import AbiError
from abi.wire.schema import EndKind
from abi.ids import COUNTER_BITS
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
    _that(board.waiting == counts[task.WAITING], f"waiting is {board.waiting}, there are {counts[task.WAITING]}")
    _that(board.queued == counts[task.QUEUED], f"queued is {board.queued}, there are {counts[task.QUEUED]}")
    _that(board.assigned == counts[task.ASSIGNED], f"assigned is {board.assigned}, there are {counts[task.ASSIGNED]}")
    opened = sum(counts[: task.ENDED])
    ended = sum(board.stats.ended)
    _that(board.stats.submitted == opened + ended, f"{board.stats.submitted} submitted, {opened} open, {ended} ended")
    _check_resources(board)
    _check_workers(board)
    _check_queues(board)


def _that(holds: bool, text: str) -> None:
    if not holds:
        raise InvariantError(text)


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
            _that(dead == queue.dead, f"{queue!r} counts {queue.dead} dead, there are {dead}")
            _that(queue.listed or not len(queue), f"{queue!r} holds tasks and is not listed")
    for worker in board.workers.values():
        last = 0
        for record in worker.outstanding:
            places.setdefault(id(record), []).append(f"worker {worker.number}")
            _that(record.number > last, f"{worker!r} has call {record.number} after {last}")
            last = record.number
            _that(record.worker == worker.number, f"{record!r} thinks that it is at worker {record.worker}")
    return places


def _check_session(board: Board, session: Session, places: dict[int, list[str]], counts: list[int]) -> None:
    pins: dict[int, int] = {}
    opened = size = 0
    for record in session.tasks.values():
        counts[record.state] += record.options >= 0 and record.state != task.ENDED
        if record.state != task.ENDED:
            opened += 1
            size += len(record.arguments) + record.size
        _check_record(record, places.get(id(record), []))
        for dependency in record.dependencies or ():
            pins[dependency.seq] = pins.get(dependency.seq, 0) + 1
        held = [*(record.nested or ()), *((record.end.nested if record.end else None) or ())]
        for seq in held:
            pins[seq] = pins.get(seq, 0) + 1
    for holder in session.holders.values():
        for seq, count in holder.held.items():
            _that(seq in session.tasks, f"submitter {holder.submitter} holds {seq:x}, which was forgotten")
            pins[seq] = pins.get(seq, 0) + count
    for seq, record in session.tasks.items():
        _that(
            record.pins == pins.get(seq, 0), f"{record!r} has {record.pins} pins, {pins.get(seq, 0)} are accounted for"
        )
    _that(opened == session.open_tasks, f"{session!r} has {opened} open tasks")
    _that(size == session.open_bytes, f"{session!r} counts {session.open_bytes} bytes, there are {size}")


def _check_record(record: Record, places: list[str]) -> None:
    expected = 1 if record.state in (task.QUEUED, task.ASSIGNED) else 0
    _that(len(places) == expected, f"{record!r} is in {places}")
    if expected:
        where = "queue" if record.state == task.QUEUED else "worker"
        _that(places[0].startswith(where), f"{record!r} is in {places}")
    _that(record.holds >= 0 and record.pins >= 0, f"{record!r} is held {record.holds} and pinned {record.pins} times")
    ended = record.state == task.ENDED
    _that(ended == (record.end is not None), f"{record!r} has the end {record.end}")
    _that((record.state == task.WAITING) == (record.waiting_for > 0), f"{record!r} waits for {record.waiting_for}")
    if ended:
        kept = record.arguments or record.size or record.dependencies or record.nested or record.dependents
        _that(not kept, f"{record!r} keeps what only its start needs")
        _that(record.holds + record.pins > 0, f"{record!r} is held by nobody and is kept")
        _that(record.end is not None and record.end.kind != EndKind.RELEASED, f"{record!r} is held and was released")
    if (
        record.seq >> COUNTER_BITS
        or record.dependencies
        or record.nested
        or record.dependents
        or record.blobs
        or record.cause
    ):
        _that(record.linked, f"{record!r} would end by the short way with something hanging on it")


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
        _that(free + used[name] == total, f"{name}: {free} free and {used[name]} used of {total}")
        _that(free >= 0 or name == CPUS, f"{name}: {free} free")
    _that(sorted(cards) == sorted(board.resources.gpus), f"cards: {cards} of {board.resources.gpus}")
    for user, account in board.users.items():
        held = sum(s.account.held for s in board.sessions.values() if s.user == user)
        _that(account.held == held, f"user {user} holds {account.held} units, the sessions {held}")


def _check_workers(board: Board) -> None:
    leaving = 0
    for number, worker in board.workers.items():
        _that(number == worker.number and worker.phase != Phase.GONE, f"{worker!r} is listed as {number}")
        leaving += worker.phase == Phase.LEAVING
        resting = number in board.idle
        _that(resting == (number in worker.session.idle.get(len(worker.gpu_ids), {})), f"{worker!r} half rests")
        _that(not (resting and (worker.outstanding or worker.shape)), f"{worker!r} rests and holds something")
        busy = bool(worker.outstanding)
        _that(not busy or worker.shape is not None, f"{worker!r} has calls and no resources")
        _that(busy or worker.touched or worker.shape is None, f"{worker!r} has no calls and keeps resources")
    _that(board.leaving == leaving, f"{board.leaving} leave, there are {leaving}")
    _that(all(number in board.workers for number in board.idle), "a worker rests that is gone")


def _check_queues(board: Board) -> None:
    for queue in board.active:
        _that(queue.listed and not queue.session.closed, f"{queue!r} is active")
    _that(len(board.active) == len({id(queue) for queue in board.active}), "a queue is active twice")
