"""What is on disk of Raft after whatever happened."""

from __future__ import annotations

import os
import queue
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from abid import raft_store
from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Output
from abid.core.raft.messages import Entry, EntryKind, HardState, Snapshot
from abid.raft_store import RaftStore, StoreError
from tests.torture import clocks

CONFIGURATION = Configuration(voters=frozenset((1, 2, 3)), learners=frozenset((4,)))


def entries(term: int, *indexes: int) -> tuple[Entry, ...]:
    return tuple(Entry(term, index, b"%d of %d" % (index, term)) for index in indexes)


class Waiting:
    """Carries out one after the other, and waits for each."""

    def __init__(self, path: Path) -> None:
        self.store = RaftStore(path)
        self.found = self.store.load()
        self._done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def __call__(self, action: Callable[..., None], what: Output | Snapshot) -> Exception | None:
        action(what, self._done.put)
        return self._done.get(timeout=30)


def test_a_new_file_holds_nothing(tmp_path: Path) -> None:
    store = Waiting(tmp_path / "raft.db")
    assert store.found.hard_state == HardState()
    assert store.found.snapshot == Snapshot(0, 0, Configuration())
    assert store.found.entries == []
    assert (tmp_path / "raft.db").stat().st_mode & 0o777 == 0o600
    store.store.close()


def test_a_later_entry_replaces_all_from_its_place_on(tmp_path: Path) -> None:
    store = Waiting(tmp_path / "raft.db")
    first = Output(hard_state=HardState(1, 2, 0), entries=entries(1, 1, 2, 3, 4))
    change = Entry(2, 3, b"change", EntryKind.CHANGE)
    assert store(store.store.store, first) is None
    assert store(store.store.store, Output(hard_state=HardState(2, 1, 2), entries=(change,))) is None
    assert store(store.store.store, Output()) is None
    store.store.close()
    found = Waiting(tmp_path / "raft.db").found
    assert found.hard_state == HardState(2, 1, 2)
    assert found.entries == [*entries(1, 1, 2), change]


def test_snapshots_take_the_place_of_entries(tmp_path: Path) -> None:
    store = Waiting(tmp_path / "raft.db")
    own = Snapshot(2, 1, CONFIGURATION, b"own")
    store(store.store.store, Output(entries=entries(1, 1, 2, 3)))
    assert store(store.store.compact, own) is None
    store.store.close()
    again = Waiting(tmp_path / "raft.db")
    assert (again.found.snapshot, again.found.entries) == (own, list(entries(1, 3)))
    leaders = Snapshot(9, 4, CONFIGURATION, b"the leader's")
    again(again.store.store, Output(snapshot=leaders, entries=entries(5, 10)))
    again.store.close()
    last = Waiting(tmp_path / "raft.db")
    assert (last.found.snapshot, last.found.entries) == (leaders, list(entries(5, 10)))
    last.store.close()


KILLED = """
import os, pathlib, signal, sys
from abid.core.raft.interface import Output
from abid.core.raft.messages import Entry, HardState
from abid.raft_store import RaftStore
store = RaftStore(pathlib.Path(sys.argv[1]))
store.load()
for index in range(1, 100_000):
    told = lambda problem, index=index: os.write(1, b"%d\\n" % index)
    store.store(Output(hard_state=HardState(1, 1, index - 1), entries=(Entry(1, index, b"x" * 100),)), told)
signal.pause()
"""


def test_what_was_said_to_be_done_survives_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "raft.db")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.kill()
        told = writer.stdout.read().splitlines()
    last = int(told[-1]) if told and told[-1] else 20
    store = Waiting(tmp_path / "raft.db")
    assert len(store.found.entries) >= last
    assert store.found.hard_state.commit == len(store.found.entries) - 1, "an output is stored whole"
    store.store.close()


SYNCED = """
import pathlib, queue, sys
from abid.core.raft.interface import Output
from abid.core.raft.messages import Entry, HardState
from abid.raft_store import RaftStore
store = RaftStore(pathlib.Path(sys.argv[1]))
store.load()
print("loaded", flush=True)
done = queue.SimpleQueue()
for number in (1, 2, 3):
    for output in (Output(hard_state=HardState(number, 1, 0)), Output(entries=(Entry(1, number, b"x"),))):
        store.store(output, done.put)
        assert done.get() is None
        print("told", flush=True)
store.close()
"""


def test_it_is_with_the_disk_before_it_is_said_to_be_done(tmp_path: Path) -> None:
    """A vote or an entry that only the kernel's cache holds is gone with the power."""
    library = clocks.built(tmp_path, Path(__file__).with_name("synced.c"))
    if library is None:
        pytest.skip("there is no C compiler")
    command = [sys.executable, "-c", SYNCED, str(tmp_path / "raft.db")]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    writes = said.partition("loaded\n")[2].split("told\n")
    assert len(writes) == 7
    assert all("synced" in before for before in writes[:6]), said


@pytest.mark.parametrize("tail", ["lost", "torn"])
def test_a_power_failure_leaves_what_was_written_up_to_some_write(tmp_path: Path, tail: str) -> None:
    """What had not been synced is on the disk in part, or as something else: of SQLite's log, which is checked by sums,
    a beginning counts. An output is there whole or not at all."""
    path, lots = tmp_path / "raft.db", random.Random(tail)
    store = Waiting(path)
    for index in range(1, 31):
        entry = Entry(1, index, lots.randbytes(lots.choice((10, 5000))))
        assert store(store.store.store, Output(hard_state=HardState(1, 1, index - 1), entries=(entry,))) is None
    database, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    store.store.close()
    found = []
    for number, end in enumerate(sorted(lots.randrange(len(log) + 1) for _ in range(20))):
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(database)
        rest = len(log) - end if tail == "torn" else 0
        Path(f"{copy}-wal").write_bytes(log[:end] + lots.randbytes(rest))
        after = Waiting(copy)
        after.store.close()
        assert after.found.hard_state.commit == max(0, len(after.found.entries) - 1)
        found.append(len(after.found.entries))
    assert found == sorted(found)
    assert found[0] < 10 < found[-1]


def test_a_write_that_fails_is_told_from_then_on(tmp_path: Path) -> None:
    store = Waiting(tmp_path / "raft.db")
    other = sqlite3.connect(tmp_path / "raft.db")
    other.execute("DROP TABLE entries")
    other.commit()
    other.close()
    assert isinstance(store(store.store.store, Output(entries=entries(1, 1))), sqlite3.Error)
    assert isinstance(store(store.store.store, Output(hard_state=HardState(1, 1, 0))), sqlite3.Error)
    store.store.close()
    assert Waiting(tmp_path / "raft.db").found.hard_state == HardState(), "nothing was written after that"


@pytest.mark.parametrize("damage", ["no database", "a hole", "newer"])
def test_what_cannot_be_read_is_said_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "raft.db"
    if damage == "no database":
        path.write_bytes(os.urandom(5000))
    else:
        store = Waiting(path)
        store(store.store.store, Output(entries=entries(1, 1, 2, 3)))
        store.store.close()
        with sqlite3.connect(path) as database:
            database.execute("DELETE FROM entries WHERE place = 2" if damage == "a hole" else "PRAGMA user_version=99")
        database.close()
    with pytest.raises(StoreError, match="newer abi" if damage == "newer" else "cannot be read") as caught:
        RaftStore(path).load()
    assert str(path) in str(caught.value)


class Full(Waiting):
    """A disk with room for nothing that needs another page, until ``empty``: SQLite itself says that it is full."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(raft_store, "AGAIN_S", 0.01)
        super().__init__(path)
        told: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self.store._work.put(raft_store._Work(told.put, self._done.put))
        self.database = told.get(timeout=30)
        assert self._done.get(timeout=30) is None
        (pages,) = self.database.execute("PRAGMA page_count").fetchone()
        self.database.execute(f"PRAGMA max_page_count={pages}")

    def empty(self) -> None:
        self.database.execute("PRAGMA max_page_count=1000000")


LARGE = (Entry(1, 1, b"x" * 50_000),)


def test_a_full_disk_is_waited_for_and_nothing_is_said_to_be_done_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, done = Full(tmp_path / "raft.db", monkeypatch), queue.SimpleQueue[object]()
    disk.store.store(Output(hard_state=HardState(1, 1, 0), entries=LARGE), done.put)
    while not disk.store.waits:
        assert done.empty()
    assert "full" in disk.store.waits
    other = sqlite3.connect(tmp_path / "raft.db")
    assert other.execute("SELECT count(*) FROM entries").fetchone() == (0,), "all of it or nothing"
    other.close()
    disk.empty()
    assert done.get(timeout=30) is None
    assert disk.store.waits == ""
    disk.store.close()
    assert Waiting(tmp_path / "raft.db").found.entries == list(LARGE)


def test_a_log_that_cannot_be_compacted_for_lack_of_room_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Full(tmp_path / "raft.db", monkeypatch)
    assert disk(disk.store.store, Output(entries=entries(1, 1))) is None, "there is room for this"
    assert disk(disk.store.compact, Snapshot(1, 1, CONFIGURATION, b"s" * 50_000)) is None
    assert disk(disk.store.store, Output(entries=entries(1, 2))) is None
    disk.store.close()
    found = Waiting(tmp_path / "raft.db").found
    assert (found.snapshot.index, found.entries) == (0, list(entries(1, 1, 2)))


def test_a_full_disk_keeps_nobody_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, done = Full(tmp_path / "raft.db", monkeypatch), queue.SimpleQueue[object]()
    monkeypatch.setattr(raft_store, "AGAIN_S", 3_600.0)
    disk.store.store(Output(entries=LARGE), done.put)
    while not disk.store.waits:
        assert done.empty()
    disk.store.close()
    assert isinstance(done.get(timeout=30), sqlite3.OperationalError), "it was not stored"


@pytest.mark.parametrize(
    ("code", "passes"),
    [(sqlite3.SQLITE_FULL, True), (sqlite3.SQLITE_BUSY, True), (sqlite3.SQLITE_IOERR_SHMSIZE, True),
     (sqlite3.SQLITE_IOERR_FSYNC, False), (sqlite3.SQLITE_IOERR_WRITE, False), (sqlite3.SQLITE_CORRUPT, False)],
)  # fmt: skip
def test_only_what_says_that_nothing_was_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, passes: bool
) -> None:
    monkeypatch.setattr(raft_store, "AGAIN_S", 0.01)
    error = sqlite3.OperationalError("the disk says no")
    error.sqlite_errorcode = code
    fails = [error, error]
    store = Waiting(tmp_path / "raft.db")

    def write(_: sqlite3.Connection) -> None:
        if fails:
            raise fails.pop()

    store.store._work.put(raft_store._Work(write, store._done.put))
    assert store._done.get(timeout=30) is (None if passes else error)
    assert (store(store.store.store, Output(entries=LARGE)) is None) is passes, "or no promise is kept from then on"
    store.store.close()
