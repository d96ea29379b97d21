"""What a member of the cluster must not forget, in an SQLite file of its own on a thread of its own.

An output of the rules is stored whole or not at all: one transaction, on disk (``synchronous=FULL``) when it is said to
be done. The loop goes on meanwhile, so that a slow disk delays answers and not heartbeats.

A write that fails is told once and then every time: after a failed fsync nobody knows what is on the disk, and this
host must promise nothing more. Where there was only no room, nothing was written and nothing is lost: the transaction
is rolled back and tried again until there is room. Nobody is told that it is done before, so it looks like a disk that
hangs, but that ``waits`` says why.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from abi.errors import AbiError
from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Output
from abid.core.raft.messages import Entry, EntryKind, HardState, Snapshot

log = logging.getLogger(__name__)

AGAIN_S: Final = 0.5
"""Until it is looked again whether there is room."""
CLOSE_S: Final = 2.0
"""For the last write. A disk that hangs must not keep the daemon from ending."""
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)
"""By these SQLite says that it has not written: no room for the file or for the index that it keeps beside it, another
process that holds it, no memory."""
LAYOUT: Final = 1
"""Of the tables. A file with a newer one is refused: an older program would misread it."""
_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS entries (place INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL,
                                        data BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_hard_state: Final = msgspec.msgpack.Decoder(HardState).decode
_decode_snapshot: Final = msgspec.msgpack.Decoder(Snapshot).decode

Done = Callable[[Exception | None], None]
"""Called in the store's thread, with what went wrong or None."""


class StoreError(AbiError):
    """The file cannot be read, or was written by a newer abi."""


class _Work(NamedTuple):
    write: Callable[[sqlite3.Connection], None]
    done: Done
    is_needed: bool = True
    """Otherwise it is left undone where there is no room."""


class Stored(msgspec.Struct):
    """What a start finds."""

    hard_state: HardState
    snapshot: Snapshot
    entries: list[Entry]


class RaftStore:
    """``load`` once, then ``store`` and ``compact`` in the order in which they are to happen."""

    def __init__(self, path: Path) -> None:
        self.waits = ""
        """Why a write has not been possible yet."""
        self._path = path
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def load(self) -> Stored:
        """What is there, and from here on the thread runs. Raises StoreError."""
        try:
            path = self._path
            path.touch(mode=0o600)
            database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            stored = self._read(database)
        except (sqlite3.Error, OSError, msgspec.DecodeError, ValueError) as error:
            raise StoreError(
                f"{self._path} cannot be read: {error}",
                hint="restore it from a backup; where others vote, `abi cluster leave --force` and `abi cluster join` "
                "bring this host back without it. The only voter must not lose it",
            ) from error
        self._thread = threading.Thread(target=self._run, args=(database,), name="abid raft store", daemon=True)
        self._thread.start()
        return stored

    def _read(self, database: sqlite3.Connection) -> Stored:
        (layout,) = database.execute("PRAGMA user_version").fetchone()
        if layout > LAYOUT:
            raise StoreError(
                f"{self._path} was written by a newer abi (layout {layout}, this one knows {LAYOUT})",
                hint="upgrade abi on this host",
            )
        database.executescript(_TABLES)
        if layout < LAYOUT:  # else a start needs no room
            database.execute(f"PRAGMA user_version={LAYOUT}")
        facts = dict(database.execute("SELECT name, value FROM facts"))
        hard_state = _decode_hard_state(facts["hard_state"]) if "hard_state" in facts else HardState()
        snapshot = _decode_snapshot(facts["snapshot"]) if "snapshot" in facts else Snapshot(0, 0, Configuration())
        rows = database.execute(
            "SELECT term, place, data, kind FROM entries WHERE place > ? ORDER BY place", (snapshot.index,)
        )
        entries = [Entry(term, place, data, EntryKind(kind)) for term, place, data, kind in rows]
        for place, entry in enumerate(entries, snapshot.index + 1):
            if entry.index != place:
                raise ValueError(f"entry {place} is missing")
        return Stored(hard_state, snapshot, entries)

    def store(self, output: Output, done: Done) -> None:
        """Snapshot, entries and hard state of an output."""

        def write(database: sqlite3.Connection) -> None:
            if output.snapshot is not None:
                _write_fact(database, "snapshot", output.snapshot)
                database.execute("DELETE FROM entries")
            if output.entries:
                database.execute("DELETE FROM entries WHERE place >= ?", (output.entries[0].index,))
                rows = [(entry.index, entry.term, int(entry.kind), entry.data) for entry in output.entries]
                database.executemany("INSERT INTO entries (place, term, kind, data) VALUES (?, ?, ?, ?)", rows)
            if output.hard_state is not None:
                _write_fact(database, "hard_state", output.hard_state)

        self._work.put(_Work(write, done))

    def compact(self, snapshot: Snapshot, done: Done) -> None:
        """The log up to the snapshot is not needed any more. Where there is no room for the snapshot, the log stays."""

        def write(database: sqlite3.Connection) -> None:
            _write_fact(database, "snapshot", snapshot)
            database.execute("DELETE FROM entries WHERE place <= ?", (snapshot.index,))

        self._work.put(_Work(write, done, is_needed=False))

    def close(self) -> None:
        """What was asked for is written first, if the disk lets us."""
        self._closing.set()
        self._work.put(None)
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self, database: sqlite3.Connection) -> None:
        while (work := self._work.get()) is not None:
            if self._failed is None:
                self._failed = self._carry_out(database, work)
            work.done(self._failed)
        database.close()

    def _carry_out(self, database: sqlite3.Connection, work: _Work) -> Exception | None:
        """What went wrong for good."""
        while (error := _transact(database, work.write)) is not None:
            if getattr(error, "sqlite_errorcode", None) not in _PASSING:
                return error
            if not work.is_needed:
                log.warning("the cluster's log is not compacted: %s", error)
                return None
            self.waits = str(error)
            if self._closing.wait(AGAIN_S):
                return error
        self.waits = ""
        return None


def _transact(database: sqlite3.Connection, write: Callable[[sqlite3.Connection], None]) -> Exception | None:
    """All of it, or nothing; and then why."""
    try:
        database.execute("BEGIN IMMEDIATE")
        write(database)
        database.execute("COMMIT")
    except Exception as error:
        try:
            if database.in_transaction:
                database.execute("ROLLBACK")
        except sqlite3.Error as worse:
            return worse
        return error
    return None


def _write_fact(database: sqlite3.Connection, name: str, value: HardState | Snapshot) -> None:
    database.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, _encode(value)))
