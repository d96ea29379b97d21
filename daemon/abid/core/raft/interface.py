"""What the shell sees of a member beside its messages: roles, settings, what comes out, what is refused."""

from __future__ import annotations

import enum

import msgspec

from abi.errors import AbiError
from abid.core.raft.messages import Entry, HardState, Message, Snapshot


class Role(enum.Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in ticks."""

    election_ticks: int = 10
    """Without a word from a leader for so long, up to twice that by lot, a voter stands for election (paper, 5.2)."""
    quorum_ticks: int = 0
    """A leader looks so often whether a majority was heard since its last look, and how a hand-over goes. 0: each
    ``election_ticks``, the shortest election timeout; any up to twice that is one as well (thesis, 6.2)."""
    heartbeat_ticks: int = 1
    rank_ticks: int = 2
    """Between one rank's turn and the next's after a leader's connection closed, in which a pre-vote, a vote and the
    writing of both are usually done, so that the next finds a leader and does not stand."""
    pre_vote: bool = True
    """Ask first whether an election could be won: who was cut off does not disturb the others (thesis, 9.6)."""
    check_quorum: bool = True
    """A leader that hears no majority steps down, and while one is heard nobody votes (thesis, 6.2)."""
    spares_answers: bool = False
    """A heartbeat wants no answer from who has said something since the quorum was looked at, and has all entries:
    check-quorum asks for one word between two looks. Each answer wakes the leader."""
    reads_by_lease: bool = False
    inflight_max: int = 256
    entries_bytes_max: int = 1 << 20
    """In one message."""
    apply_bytes_max: int = 1 << 20
    """Committed entries in one output."""
    leave_when_removed: bool = True
    """A leader that is no voter any more steps down (thesis, 4.2.2)."""
    rest_before_leaving: bool = True
    """A leader whose own vote is about to go proposes nothing more. Else its log could end behind everybody's: nobody
    would get its vote, which those need who do not know yet that it has none."""
    votes_tell_commit: bool = True
    """Who asks for a vote, and who refuses one, says what is committed: the other may not know it."""
    check_changes: bool = True
    """Refuse a change while another is under way (thesis, 4.1)."""


class Output(msgspec.Struct, kw_only=True):
    """What is to be done, in this order: store, send, apply."""

    hard_state: HardState | None = None
    """None: as before."""
    entries: tuple[Entry, ...] = ()
    """They replace what is stored from the first one's index on."""
    snapshot: Snapshot | None = None
    """Always synced before what follows, whatever ``must_sync`` says: its answer counts as having all of it."""
    must_sync: bool = False
    messages: tuple[Message, ...] = ()
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[bytes, int], ...] = ()
    """Reads that may be answered when all up to their index has been applied."""
    leader: int | None = None
    """None: as before; NOBODY: none is known."""
    role: Role | None = None


class Dropped(AbiError):
    """A proposal that went nowhere: no leader is known, or leadership is being handed over. It may be tried again."""


class Stranger(AbiError):
    """An answer from a node that is not a member."""
