"""Changes of the configuration, which are entries of the log and count when they are applied (thesis, 4.1 to 4.3)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from abid.core.raft import replication
from abid.core.raft.configuration import Change, ChangeKind, Configuration
from abid.core.raft.interface import Role
from abid.core.raft.messages import NOBODY, Entry, EntryKind
from abid.core.raft.progress import tracked

if TYPE_CHECKING:
    from abid.core.raft.raft import Raft


class Transition(enum.IntEnum):
    AUTO = 0
    """A single voter in a simple change; more through a joint configuration that is left by itself."""
    IMPLICIT = 1
    """Through a joint configuration that is left by itself."""
    EXPLICIT = 2
    """Through a joint configuration that is left when somebody proposes it."""


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """The ``data`` of an entry that changes the configuration. Without changes: leave the joint configuration."""

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO

    @property
    def leaves(self) -> bool:
        return not self.changes and self.transition == Transition.AUTO

    @property
    def is_joint(self) -> bool:
        return self.transition != Transition.AUTO or len(self.changes) > 1


_TAKES_VOTE = (ChangeKind.LEARNER, ChangeKind.REMOVE)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Proposal).decode


def encoded(proposal: Proposal) -> bytes:
    """As an entry's ``data``; leaving is the empty one."""
    return b"" if proposal.leaves else _encode(proposal)


def decoded(data: bytes) -> Proposal:
    """Raises msgspec.DecodeError."""
    return _decode(data) if data else Proposal()


def is_out_of_turn(raft: Raft, entry: Entry) -> bool:
    """One change at a time (thesis, 4.1): the last may still be on its way; what is joint must be left first."""
    is_under_way = raft.change_index > raft.log.applied
    return is_under_way or raft.configuration.is_joint != decoded(entry.data).leaves


def is_waiting(raft: Raft) -> bool:
    """Whether a change is committed and not applied."""
    log = raft.log
    if log.applied >= log.committed:
        return False
    first = max(log.applied + 1, log.first_index)
    entries = log.entries[first - log.first_index : log.committed - log.begin]
    return any(entry.kind == EntryKind.CHANGE for entry in entries)


def takes_our_vote(raft: Raft) -> bool:
    """As a leader: whether a change is on its way after which we do not vote."""
    log = raft.log
    if raft.change_index <= log.applied:
        return False
    number, configuration = raft.number, raft.configuration
    for entry in log.entries[max(log.applied, log.begin) - log.begin :]:
        if entry.kind != EntryKind.CHANGE:
            continue
        proposal = decoded(entry.data)
        if proposal.leaves and configuration.is_joint and number not in configuration.voters:
            return True
        if any(change.node == number and change.kind in _TAKES_VOTE for change in proposal.changes):
            return True
    return False


def apply(raft: Raft, data: bytes) -> Configuration:
    """From here on the configuration is another. Raises ConfigurationError, and then it is as before."""
    proposal = decoded(data)
    if proposal.leaves:
        configuration = raft.configuration.leave_joint()
    elif proposal.is_joint:
        auto_leave = proposal.transition != Transition.EXPLICIT
        configuration = raft.configuration.enter_joint(proposal.changes, auto_leave=auto_leave)
    else:
        configuration = raft.configuration.simple(proposal.changes)
    raft.configuration = configuration
    raft.members = tracked(raft.members, configuration, raft.log.last_index, raft.settings.inflight_max)
    _adapt(raft)
    return configuration


def _adapt(raft: Raft) -> None:
    """What a leader does under a new configuration."""
    if raft.role != Role.LEADER:
        return
    if raft.number not in raft.configuration.all_voters:
        if raft.settings.leave_when_removed:
            raft.become(Role.FOLLOWER, raft.term)
        return
    if replication.commit(raft):  # a majority may be smaller now
        replication.send_appends(raft)
    else:
        for node in raft.members:
            if node != raft.number:
                replication.send_append(raft, node, even_empty=False)
    if raft.transfer_to not in raft.configuration.all_voters:
        raft.transfer_to = NOBODY


def leave_if_due(raft: Raft) -> None:
    """The joint configuration has been applied: propose to leave it. Not while leadership is handed over: whoever leads
    then does it, be it we again."""
    if raft.role != Role.LEADER or raft.transfer_to != NOBODY:
        return
    if raft.configuration.auto_leave and raft.log.applied >= raft.change_index:
        raft.propose_change(encoded(Proposal()))
