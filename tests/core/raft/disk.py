"""A disk as Raft meets it: what was synced stays, of what was not a crash leaves the beginning."""

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
    unsynced: list[Write] = field(default_factory=list)

    def write(self, output: Output) -> None:
        """In this order, so that at no point more is committed than there is."""
        if output.snapshot is not None:
            self.unsynced.append(output.snapshot)
        self.unsynced += output.entries
        if output.hard_state is not None:
            self.unsynced.append(output.hard_state)

    def store(self, output: Output) -> None:
        self.write(output)
        if output.must_sync or output.snapshot is not None:
            self.sync()

    def compact(self, snapshot: Snapshot) -> None:
        self.unsynced.append(Compaction(snapshot))

    def sync(self) -> None:
        self.crash(len(self.unsynced))

    def crash(self, kept: int) -> None:
        """So many of the unsynced writes had reached the disk."""
        for write in self.unsynced[:kept]:
            self.put(write)
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
