"""A disk as Raft meets it: what was synced stays, of what was not a crash leaves the beginning. An output is there
whole or not at all, as ``abid.raft_store`` has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Output
from abid.core.raft.messages import Entry, HardState, Snapshot


class Compaction(NamedTuple):
    snapshot: Snapshot


Write = Snapshot | Entry | HardState | Compaction
EMPTY = Snapshot(0, 0, Configuration())


@dataclass
class Disk:
    """``unsynced`` is in the order in which it was written; the rest says what is safe."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot = EMPTY
    unsynced: list[tuple[Write, ...]] = field(default_factory=list)

    def write(self, output: Output) -> None:
        parts = (output.snapshot, *output.entries, output.hard_state)
        self.unsynced.append(tuple(part for part in parts if part is not None))

    def store(self, output: Output) -> None:
        self.write(output)
        if output.must_sync or output.snapshot is not None:
            self.sync()

    def compact(self, snapshot: Snapshot) -> None:
        self.unsynced.append((Compaction(snapshot),))

    def sync(self) -> None:
        self.crash(len(self.unsynced))

    def crash(self, kept: int) -> None:
        """So many of the unsynced had reached the disk."""
        for parts in self.unsynced[:kept]:
            for part in parts:
                self.put(part)
        self.unsynced = []

    def put(self, write: Write) -> None:
        match write:
            case Entry():
                del self.entries[write.index - self.snapshot.index - 1 :]
                self.entries.append(write)
            case HardState():
                self.hard_state = write
            case Compaction(snapshot):
                self.entries = [entry for entry in self.entries if entry.index > snapshot.index]
                self.snapshot = snapshot
            case Snapshot():
                self.entries = []
                self.snapshot = write

    def copy(self) -> Disk:
        """Of what is safe: a backup."""
        return Disk(self.hard_state, list(self.entries), self.snapshot)

    @property
    def last_index(self) -> int:
        return self.snapshot.index + len(self.entries)
