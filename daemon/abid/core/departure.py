"""Workers come and go: forking, leaving, dying; who is to blame, and that everything held comes back exactly once."""

from __future__ import annotations

from abi.wire.schema import End, EndKind
from abid.core import cancel, effects, holds, lifecycle
from abid.core.board import Board
from abid.core.retry import Death, Role, after_death
from abid.core.session import Holder, Session
from abid.core.task import Record
from abid.core.workers import Phase, Worker


def spawn(board: Board, session: Session, gpus: int) -> Worker:
    """A new worker, usable at once."""
    gpu_ids, board.resources.free_gpus = board.resources.free_gpus[:gpus], board.resources.free_gpus[gpus:]
    worker = Worker(board.worker_next, session, session.submitter_next, gpu_ids, session.commands)
    board.worker_next += 1
    session.submitter_next += 1
    board.workers[worker.number] = worker
    session.workers[worker.number] = worker
    session.holders[worker.submitter] = Holder(worker.submitter, worker)
    worker.last_call = session.commands
    board.emit(effects.Spawn(worker))
    return worker


def settle(board: Board, now: int) -> list[Worker]:
    """Workers that ran empty give back what they held, and rest or leave. Returns those that began to rest."""
    touched, board.touched = board.touched, []
    resting = []
    for worker in touched:
        worker.touched = False
        if worker.outstanding or worker.recall_asked or worker.phase == Phase.GONE:
            continue
        fresh = worker.shape is not None
        board.give_shape(worker, now)
        worker.each_ns = 0
        if worker.phase != Phase.LIVE:
            continue
        if worker.last_call and fresh:
            stop(board, worker, now)
        elif worker.number not in board.idle:
            worker.idle_since = now
            board.idle[worker.number] = worker
            worker.session.idle.setdefault(len(worker.gpu_ids), {})[worker.number] = worker
            resting.append(worker)
    return resting


def wake(board: Board, worker: Worker) -> None:
    """It has work again."""
    board.idle.pop(worker.number, None)
    idle = worker.session.idle.get(len(worker.gpu_ids))
    if idle:
        idle.pop(worker.number, None)


def stop(board: Board, worker: Worker, now: int) -> None:
    """It is told to leave, runs what was registered for its end, and is killed if that never comes to an end."""
    wake(board, worker)
    if worker.phase == Phase.LIVE:
        worker.phase = Phase.LEAVING
        board.leaving += 1
        board.emit(effects.Stop(worker))
        cancel.watch_leaving(board, worker, now)


def on_exit(board: Board, worker: Worker, running: int, death: Death, now: int) -> None:
    """The process is gone. Only the call that ran is charged. Idempotent."""
    if worker.phase == Phase.GONE:
        return
    session = worker.session
    records = list(worker.outstanding)
    worker.outstanding.clear()
    _gone(board, worker, now)
    if not session.closed:
        back: list[Record] = []
        for record in records:
            _judge(board, session, record, _role(record.number, running, death), death, back, now)
        lifecycle.take_back(board, session, back, now)
        holds.release_holder(board, session, worker.submitter)
    if session.closed and not session.workers:
        board.forget(session)


def _role(number: int, running: int, death: Death) -> Role:
    """Calls start in order: those before the running one had ended, those after it had not begun."""
    if not death.started:
        return Role.UNSTARTED
    if running == number:
        return Role.RUNNING
    return Role.UNSTARTED if number > (running or death.last_started) else Role.UNKNOWN


def _judge(
    board: Board, session: Session, record: Record, role: Role, death: Death, back: list[Record], now: int
) -> None:
    """One outstanding call of a dead worker."""
    if role == Role.RUNNING and record.children:
        children, record.children = record.children, None
        cancel.on_cancel(board, session, children, False, True, now)
    if record.cause:
        end = lifecycle.cancelled_end(board, session, record)
        lifecycle.finish(board, session, record, end, None, now)
        return
    option = session.options[record.options].wire
    verdict = after_death(
        role, option.max_retries, record.charged, record.uncharged, death.charged, board.limits.uncharged_starts_max
    )
    again = verdict.charged + verdict.uncharged - record.charged - record.uncharged
    board.stats.uncharged += verdict.uncharged - record.uncharged
    record.charged, record.uncharged = verdict.charged, verdict.uncharged
    if verdict.end is None:
        board.stats.retries += again and role == Role.RUNNING and death.charged
        record.attempt += again
        back.append(record)
        return
    text = _text(verdict.end, role, death, record)
    payload = board.failure(session, record, verdict.end, text, death.stderr)
    lifecycle.finish(board, session, record, End(record.seq, verdict.end, payload, record.attempt), None, now)


def _text(end: EndKind, role: Role, death: Death, record: Record) -> str:
    if end == EndKind.CRASHED:
        starts = "start" if record.attempt == 1 else f"{record.attempt} starts"
        return f"{death.text}; given up after {starts}"
    if role == Role.RUNNING:
        return f"its worker died while it ran, and it may not be started again: {death.text}"
    return f"its worker died, and it may have run; it is not started again: {death.text}"


def _gone(board: Board, worker: Worker, now: int) -> None:
    """Everything the worker held, once."""
    session = worker.session
    board.give_shape(worker, now)
    wake(board, worker)
    if worker.phase == Phase.LEAVING:
        board.leaving -= 1
    worker.phase = Phase.GONE
    if board.effects:  # its last words may have caused some in this same turn
        board.effects = [effect for effect in board.effects if getattr(effect, "worker", None) is not worker]
    board.resources.free_gpus.extend(worker.gpu_ids)
    del board.workers[worker.number]
    session.workers.pop(worker.number, None)
