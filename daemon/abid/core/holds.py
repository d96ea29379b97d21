"""Who holds an object, and for how long it is therefore kept.

The program's holds are counted in ``Record.holds``; everybody else's (workers, arguments and dependencies of unfinished
tasks, results that contain references) in ``Record.pins``. What has ended and is held by nobody is forgotten.
"""

from __future__ import annotations

from typing import Any

from abi.errors import ProtocolError
from abi.ids import COUNTER_BITS
from abi.wire.schema import ROOT, End, EndKind, Put
from abid.core.board import Board
from abid.core.session import Holder, Session
from abid.core.task import ENDED, Record


def pin(session: Session, seqs: list[int], owner: int) -> list[int]:
    """Hold these for ``owner``. Returns those that exist: what is not here cannot be held."""
    here = []
    for seq in seqs:
        record = session.tasks.get(seq)
        if record is not None and seq != owner:
            record.pins += 1
            record.linked = True
            here.append(seq)
    return here


def unpin(board: Board, session: Session, seqs: list[int]) -> None:
    """One hold less each; what nobody holds any more is forgotten, with what its result held."""
    work = list(seqs)
    tasks = session.tasks
    for seq in work:
        record = tasks.get(seq)
        if record is None:
            continue
        record.pins -= 1
        if not record.pins and not record.holds and record.state == ENDED:
            drop(board, session, record, work)


def drop(board: Board, session: Session, record: Record, unpinned: list[int]) -> None:
    """Forget an ended record; what its result held is appended to ``unpinned``."""
    del session.tasks[record.seq]
    board.discard(record.blobs)
    record.blobs = None
    if record.end is not None and record.end.nested:
        unpinned.extend(record.end.nested)


def on_put(
    board: Board,
    session: Session,
    submitter: int,
    puts: list[Put],
    blobs: dict[int, list[Any]] | None,
    too_many: str = "",
) -> None:
    """Objects without a task: they have ended well before they came. With ``too_many``, those with descriptors are not
    kept, and who needs one is told so."""
    if session.closed:
        return
    holder = session.holder(submitter)
    for index, put in enumerate(puts):
        held = blobs.get(index) if blobs else None
        if submitter and put.seq >> COUNTER_BITS != submitter:  # a program supplies also what its tasks had made
            raise ProtocolError(f"submitter {submitter} put object {put.seq:x}, which is not in its range")
        if put.seq in session.tasks:
            board.discard(held)
            continue
        nested = pin(session, put.nested, put.seq) if put.nested else None
        end = End(put.seq, EndKind.OK, put.payload, 1, put.size, 0, nested, put.parts)
        record = Record(put.seq, -1, -1, state=ENDED, end=end, blobs=held, linked=True)
        if held and too_many:
            failure = board.failure(
                session, record, EndKind.REFUSED, too_many, retry_after_ms=board.limits.retry_after_ms
            )
            record.end, record.blobs = End(put.seq, EndKind.REFUSED, failure, 1, 0, 0, nested), None
            board.discard(held)
        if submitter != ROOT:
            record.holds, record.pins = 0, 1
            holder.held[put.seq] = 1
        session.tasks[put.seq] = record


def on_want(board: Board, session: Session, submitter: int, seqs: list[int]) -> None:
    """Push these ends to a submitter when they are there, once."""
    if session.closed:
        return
    session.holder(submitter)
    for seq in seqs:
        record = session.tasks.get(seq)
        if record is None:
            text = f"object {seq:x} is not here: it was released or never made"
            record = Record(seq, -1, -1, state=ENDED)
            record.end = End(seq, EndKind.LOST, board.failure(session, record, EndKind.LOST, text))
            board.outbox(session, submitter).append(record)
        elif record.state == ENDED:
            board.outbox(session, submitter).append(record)
        elif seq >> COUNTER_BITS != submitter:  # its own submitter gets it anyway
            record.linked = True
            wanting = session.wants.setdefault(seq, [])
            if submitter not in wanting:
                wanting.append(submitter)


def on_borrow(session: Session, submitter: int, seqs: list[int]) -> None:
    """One hold more each. An object that is gone cannot be held; who wants it is told so."""
    if session.closed:
        return
    held = session.holder(submitter).held
    for seq in seqs:
        record = session.tasks.get(seq)
        if record is None:
            continue
        if submitter == ROOT:
            record.holds += 1
        else:
            record.pins += 1
            record.linked = True
            held[seq] = held.get(seq, 0) + 1


def on_release(board: Board, session: Session, submitter: int, seqs: list[int]) -> None:
    """One hold less each. A task that nobody holds still runs. What a submitter does not hold, it cannot release."""
    if session.closed:
        return
    if submitter != ROOT:
        _release_held(board, session, session.holder(submitter), seqs)
        return
    tasks = session.tasks
    for seq in seqs:
        record = tasks.get(seq)
        if record is None or not record.holds:
            continue
        record.holds -= 1
        if record.state == ENDED and not record.holds and not record.pins:
            if record.linked or record.end.nested:  # type: ignore[union-attr]  # ended: it has one
                unpinned: list[int] = []
                drop(board, session, record, unpinned)
                unpin(board, session, unpinned)
            else:
                del tasks[seq]


def _release_held(board: Board, session: Session, holder: Holder, seqs: list[int]) -> None:
    held = holder.held
    for seq in seqs:
        count = held.get(seq, 0)
        if not count:
            continue
        if count == 1:
            del held[seq]
        else:
            held[seq] = count - 1
        unpin(board, session, [seq])


def release_holder(board: Board, session: Session, submitter: int) -> None:
    """A worker is gone: it holds nothing any more, and nothing is delivered to it."""
    holder = session.holders.pop(submitter, None)
    if holder is None:
        return
    session.outbox.pop(submitter, None)
    for seq, count in holder.held.items():
        unpin(board, session, [seq] * count)
    holder.held.clear()
