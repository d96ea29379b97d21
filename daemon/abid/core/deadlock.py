"""When all that runs waits for what cannot start: too deep a nest for the processes there may be, or parents that hold
the very memory or resource that their children ask for. Nothing would ever happen again; so after a while one of those
that cannot start is refused by name, its parent fails at its ``get`` or goes on without it, and the rest can move.

Who waits with a time limit, again and again, moves by himself and is left alone: each look of his starts the clock
anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from abi.wire.schema import End, EndKind
from abid.core import lifecycle
from abid.core.board import Board
from abid.core.queues import Queue

DEADLOCK_NS: Final = 5_000_000_000
"""Far longer than any worker is between two states, short for a person who would wait for ever."""


def watch(board: Board, unmet: Iterable[tuple[Queue, frozenset[str], bool]], now: int) -> None:
    """At the end of each scheduling: start the clock, or stop it. A child is refused first, since it is its parent that
    waits; but a parent may also wait for what the program itself submitted."""
    queues = [queue for queue, _, _ in unmet]
    stuck = next((queue for queue in queues if queue.nested), queues[0] if queues else None)
    if stuck is None or not _all_wait(board):
        board.stuck = None
    elif board.stuck is None:
        board.stuck, board.stuck_since = stuck, now


def _all_wait(board: Board) -> bool:
    if board.leaving:
        return False  # it will leave room
    busy = [worker for worker in board.workers.values() if worker.outstanding]
    return bool(busy) and all(worker.blocked for worker in busy)


def due(board: Board) -> int | None:
    return None if board.stuck is None else board.stuck_since + DEADLOCK_NS


def on_timer(board: Board, now: int) -> None:
    queue = board.stuck
    if queue is None or now < board.stuck_since + DEADLOCK_NS:
        return
    board.stuck = None
    record = queue.head()
    if record is None:
        return
    lacking = board.resources.lacking(queue.shape)
    if lacking:
        text = f"tasks that wait for others hold all {', '.join(sorted(lacking))} it asks for"
    else:
        text = f"all {len(board.workers)} workers wait for others, and workers.processes_max allows no more of them"
    text = f"it can never start: {text}"
    failure = board.failure(queue.session, record, EndKind.REFUSED, text)
    lifecycle.finish(board, queue.session, record, End(record.seq, EndKind.REFUSED, failure), None, now)
