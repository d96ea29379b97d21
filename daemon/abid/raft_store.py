"""What a member of the cluster must not forget, in an SQLite file of its own on a thread of its own.

An output of the rules is stored whole or not at all: one transaction, on disk (``synchronous=FULL``) when it is said to
be done. The loop goes on meanwhile, so that a slow disk delays answers and not heartbeats. A write that fails is told
once and then every time: after a failed fsync nobody knows what is on the disk, and the daemon has to end.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from abi.errors import AbiError
from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Output
from abid.core.raft.messages import Entry, EntryKind, HardState, Snapshot

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


class Stored(msgspec.Struct):
    """What a start finds."""

    hard_state: HardState
    snapshot: Snapshot
    entries: list[Entry]


class RaftStore:
    """``load`` once, then ``store`` and ``compact`` in the order in which they are to happen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._work: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], None], Done] | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
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
                hint="restore it, or remove it: then this host joins again, as a new one",
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

        self._work.put((write, done))

    def compact(self, snapshot: Snapshot, done: Done) -> None:
        """The log up to the snapshot is not needed any more."""

        def write(database: sqlite3.Connection) -> None:
            _write_fact(database, "snapshot", snapshot)
            database.execute("DELETE FROM entries WHERE place <= ?", (snapshot.index,))

        self._work.put((write, done))

    def close(self) -> None:
        """What was asked for is written first."""
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self, database: sqlite3.Connection) -> None:
        while (work := self._work.get()) is not None:
            write, done = work
            if self._failed is None:
                try:
                    database.execute("BEGIN IMMEDIATE")
                    write(database)
                    database.execute("COMMIT")
                except Exception as error:
                    self._failed = error
            done(self._failed)
        database.close()


def _write_fact(database: sqlite3.Connection, name: str, value: HardState | Snapshot) -> None:
    database.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, _encode(value)))
