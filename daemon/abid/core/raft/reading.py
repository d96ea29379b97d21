"""Reads that see all that was committed when they were asked for (thesis, 6.4: read-index)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from abid.core.raft import quorum, replication
from abid.core.raft.interface import Role
from abid.core.raft.messages import NOBODY, Kind, Message

if TYPE_CHECKING:
    from abid.core.raft.raft import Raft


class _Read:
    __slots__ = ("acks", "index", "message")

    def __init__(self, message: Message, index: int) -> None:
        self.message = message
        self.index = index
        self.acks: dict[int, bool] = {}


class Reads:
    """Those under way, in the order in which they were asked for: who confirms one confirms all before it."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, _Read] = {}
        self.early: list[Message] = []
        """Asked for before our term has committed anything: we may not know yet what is committed."""
        self.ready: list[tuple[bytes, int]] = []

    @property
    def last(self) -> bytes:
        """The youngest, which heartbeats carry."""
        return next(reversed(self.waiting)) if self.waiting else b""


def ask(raft: Raft, message: Message) -> None:
    """A leader asks the others whether it still is one; a follower passes it on. Dropped where no leader is known."""
    if raft.role != Role.LEADER:
        if raft.leader != NOBODY:
            raft.outbox.append(msgspec.structs.replace(message, receiver=raft.leader, term=0))
        return
    if raft.log.term_of(raft.log.committed) != raft.term:
        raft.reads.early.append(message)
        return
    if raft.configuration.all_voters == frozenset((raft.number,)) or raft.settings.reads_by_lease:
        _answer(raft, message, raft.log.committed)
        return
    read = _Read(message, raft.log.committed)
    read.acks[raft.number] = True
    raft.reads.waiting.setdefault(message.read, read)
    replication.send_heartbeats(raft, message.read)


def confirm(raft: Raft, node: int, context: bytes) -> None:
    """A member heard us as its leader after the read was asked for."""
    reads, configuration = raft.reads, raft.configuration
    read = reads.waiting.get(context)
    if read is None:
        return
    read.acks[node] = True
    if quorum.counted_by_both(configuration.voters, configuration.outgoing, read.acks) != quorum.Vote.WON:
        return
    for known in list(reads.waiting):
        before = reads.waiting.pop(known)
        _answer(raft, before.message, before.index)
        if known == context:
            return


def release(raft: Raft) -> None:
    """Something was committed in our term: what was asked too early can be asked now."""
    if raft.reads.early and raft.log.term_of(raft.log.committed) == raft.term:
        early, raft.reads.early = raft.reads.early, []
        for message in early:
            ask(raft, message)


def _answer(raft: Raft, message: Message, index: int) -> None:
    if message.sender in (NOBODY, raft.number):
        raft.reads.ready.append((message.read, index))
    else:
        raft.send(Kind.READ_ANSWER, message.sender, index=index, read=message.read)
