"""What members of a cluster say to each other, and what each of them stores."""

from __future__ import annotations

import enum

import msgspec

from abid.core.raft.configuration import Configuration

NOBODY = 0
"""No node has this number: no leader is known, no vote was given."""


class EntryKind(enum.IntEnum):
    NORMAL = 0
    """``data`` is the application's; empty in the entry with which a leader begins its term (paper, 8)."""
    CHANGE = 1
    """``data`` is a change of the configuration, encoded by whoever proposed it."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    term: int
    index: int
    data: bytes = b""
    kind: EntryKind = EntryKind.NORMAL


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """What must be on disk before any answer that depends on it (paper, figure 2). ``commit`` may lag behind."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """All that the log up to ``index`` came to (paper, 7)."""

    index: int
    term: int
    configuration: Configuration
    data: bytes = b""


class Kind(enum.IntEnum):
    VOTE = 1
    VOTE_ANSWER = 2
    PRE_VOTE = 3
    PRE_VOTE_ANSWER = 4
    APPEND = 5
    APPEND_ANSWER = 6
    HEARTBEAT = 7
    HEARTBEAT_ANSWER = 8
    SNAPSHOT = 9
    TIMEOUT_NOW = 10
    """To whom leadership is handed: stand for election at once (thesis, 3.10)."""
    PROPOSE = 11
    """Entries that a follower passes on to its leader."""
    READ = 12
    READ_ANSWER = 13


FROM_LEADERS = frozenset({Kind.APPEND, Kind.HEARTBEAT, Kind.SNAPSHOT})
"""They begin a follower's count of time anew."""
ANSWERS = frozenset({Kind.VOTE_ANSWER, Kind.PRE_VOTE_ANSWER, Kind.APPEND_ANSWER, Kind.HEARTBEAT_ANSWER})
AFTER_STORING = frozenset({Kind.VOTE_ANSWER, Kind.PRE_VOTE_ANSWER, Kind.APPEND_ANSWER})
"""Promises about what is on disk: they may leave only when it is."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """``index`` and ``log_term`` name an entry: the one before ``entries``, the candidate's last, the one answered."""

    kind: Kind
    sender: int
    receiver: int
    term: int = 0
    index: int = 0
    log_term: int = 0
    commit: int = 0
    entries: tuple[Entry, ...] = ()
    refused: bool = False
    hint: int = 0
    """In a refused append: where the follower's log may agree with the leader's. In a vote asked for or refused: the
    term of the entry at ``commit``."""
    snapshot: Snapshot | None = None
    is_transfer: bool = False
    """A vote asked for because the leader handed over: it is given although the leader was heard just now."""
    read: bytes = b""
    """Which read is asked for, or confirmed by a heartbeat."""
    wants_no_answer: bool = False
    """A heartbeat that only says that the leader is there."""
