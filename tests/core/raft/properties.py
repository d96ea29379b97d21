"""What always holds (paper, figure 3), looked at from outside of the rules: they are asked for facts, never for a
verdict."""

from __future__ import annotations

from collections.abc import Collection

from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Role
from abid.core.raft.messages import Entry
from abid.core.raft.raft import Raft


class Broken(AssertionError):
    """Something does not hold that always must."""


class Properties:
    """Of one cluster, from its beginning on."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        """Who led a term."""
        self.led: dict[int, list[tuple[int, int]]] = {}
        """What a leader's log was when it was last looked at: (index, term)."""
        self.truth: dict[int, Entry] = {}
        """What was applied anywhere, by index."""
        self.configurations: dict[int, Configuration] = {}
        """What each change came to, by index."""
        self.acknowledged = 0
        """Whoever proposed something up to here may know that it is done."""

    def look(self, number: int, raft: Raft) -> None:
        """At a node, after anything happened to it. Raises Broken."""
        if raft.role != Role.LEADER:
            self.led.pop(number, None)
            return
        known = self.leaders.setdefault(raft.term, number)
        if known != number:
            raise Broken(f"election safety: nodes {known} and {number} both lead term {raft.term}")
        if number not in self.led:
            self._look_complete(number, raft)
        self._look_append_only(number, raft)

    def _look_complete(self, number: int, raft: Raft) -> None:
        """Leader completeness: all that was committed in earlier terms."""
        log = raft.log
        for index, entry in self.truth.items():
            if entry.term < raft.term and index > log.begin and log.term_of(index) != entry.term:
                raise Broken(f"leader completeness: node {number} leads term {raft.term} without {entry}")

    def _look_append_only(self, number: int, raft: Raft) -> None:
        """Looked at only when the log grew or shrank: a leader's never does the latter."""
        log = raft.log
        before = self.led.get(number, [])
        if before and before[-1][0] == log.last_index:
            return
        for index, term in before:
            if index > log.begin and log.term_of(index) != term:
                raise Broken(f"leader append-only: node {number} leads and changed its own entry {index}")
        self.led[number] = [(entry.index, entry.term) for entry in log.entries]

    def on_crash(self, number: int) -> None:
        self.led.pop(number, None)

    def on_apply(self, number: int, entry: Entry, applied_before: int) -> None:
        if entry.index != applied_before + 1:
            raise Broken(f"state-machine safety: node {number} applies {entry.index} after {applied_before}")
        known = self.truth.setdefault(entry.index, entry)
        if known != entry:
            raise Broken(f"state-machine safety: node {number} applies {entry}, another applied {known}")
        self.acknowledged = max(self.acknowledged, entry.index)

    def on_configuration(self, number: int, index: int, configuration: Configuration) -> None:
        known = self.configurations.setdefault(index, configuration)
        if known != configuration:
            raise Broken(f"membership: entry {index} makes {configuration} of node {number}'s, and made {known}")

    def on_read(self, number: int, index: int, asked_at: int) -> None:
        """Linearizable: it sees all that was acknowledged to anybody before it was asked for."""
        if index < asked_at:
            raise Broken(f"linearizability: a read of node {number} at {index} does not see {asked_at}")

    def look_at_logs(self, rafts: Collection[Raft]) -> None:
        """Log matching: where two logs have the same term at an index, all before is the same."""
        logs = [raft.log for raft in rafts]
        for place, one in enumerate(logs):
            for other in logs[:place]:
                begin, last = max(one.begin, other.begin) + 1, min(one.last_index, other.last_index)
                same = False
                for index in range(last, begin - 1, -1):
                    ours, theirs = one.entries[index - one.begin - 1], other.entries[index - other.begin - 1]
                    same = same or ours.term == theirs.term
                    if same and ours != theirs:
                        raise Broken(f"log matching: they agree behind {index} and differ at it: {ours}, {theirs}")
