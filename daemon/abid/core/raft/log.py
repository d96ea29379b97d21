"""One node's log: what is in memory of it, how far it is stored, committed and applied (paper, 5.3).

Indexes begin at 1. Entries up to the snapshot's are gone; of the last of them the term is still known.
"""

from __future__ import annotations

from collections.abc import Sequence

from abid.core.raft.messages import Entry, Snapshot


class Log:
    """``applied`` ≤ ``committed`` ≤ ``last_index``."""

    def __init__(self, begin: int = 0, begin_term: int = 0, entries: Sequence[Entry] = ()) -> None:
        self.begin, self.begin_term = begin, begin_term
        """The entry before our first."""
        self.entries = list(entries)
        self.stored = self.last_index
        """Entries up to here were handed out to be stored."""
        self.committed = self.applied = begin
        self.restoring: Snapshot | None = None
        """A snapshot that came and has not been stored yet."""

    @property
    def first_index(self) -> int:
        return self.begin + 1

    @property
    def last_index(self) -> int:
        return self.begin + len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1].term if self.entries else self.begin_term

    def term_of(self, index: int) -> int | None:
        """None for what we never had, or have no more."""
        if index == self.begin:
            return self.begin_term
        if self.begin < index <= self.last_index:
            return self.entries[index - self.begin - 1].term
        return None

    def between(self, first: int, last: int, size_max: int) -> tuple[Entry, ...]:
        """Entries ``first`` to ``last``, as many as fit into ``size_max`` bytes, and at least one if there is one."""
        found = self.entries[first - self.begin - 1 : last - self.begin]
        size = 0
        for count, entry in enumerate(found):
            size += len(entry.data)
            if count and size > size_max:
                return tuple(found[:count])
        return tuple(found)

    def is_current(self, index: int, term: int) -> bool:
        """Whether a log that ends so has at least all that ours may have promised (paper, 5.4.1)."""
        return (term, index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Behind our last, or over what follows it; never over what is committed."""
        if not entries:
            return
        first = entries[0].index
        assert self.committed < first <= self.last_index + 1, "a committed entry would be lost"
        del self.entries[first - self.begin - 1 :]
        self.entries.extend(entries)
        self.stored = min(self.stored, first - 1)

    def accept(self, index: int, term: int, entries: Sequence[Entry]) -> int | None:
        """Entries from a leader, behind the one at ``index``. The last index that agrees with the leader's log; None
        if ours has another entry there, or none (paper, 5.3: the consistency check)."""
        if self.term_of(index) != term:
            return None
        for place, entry in enumerate(entries):
            if self.term_of(entry.index) != entry.term:
                self.append(entries[place:])
                break
        return index + len(entries)

    def commit_to(self, index: int) -> None:
        assert index <= self.last_index, "committed is what we do not have: the log was lost"
        self.committed = max(self.committed, index)

    def agreeing(self, index: int, term: int) -> tuple[int, int]:
        """The last entry at or before ``index`` whose term is not above ``term``, and that term: where two logs may
        agree at best, so that a probe skips a whole term at a time (paper, end of 5.3)."""
        while (own := self.term_of(index)) is not None:
            if own <= term:
                return index, own
            index -= 1
        return index, 0

    def unstored(self) -> tuple[Entry, ...]:
        return tuple(self.entries[self.stored - self.begin :])

    def to_apply(self, size_max: int) -> tuple[Entry, ...]:
        """Committed and not applied. Nothing before a snapshot that came has been taken in."""
        if self.restoring is not None or self.applied >= self.committed:
            return ()
        return self.between(self.applied + 1, self.committed, size_max)

    def compact(self, index: int) -> None:
        """Forget entries up to ``index``, which must be applied."""
        term = self.term_of(index)
        assert term is not None and index <= self.applied, "only what was applied can be forgotten"  # noqa: PT018
        del self.entries[: index - self.begin]
        self.begin, self.begin_term = index, term

    def restore(self, snapshot: Snapshot) -> None:
        """All before is replaced by what the snapshot holds."""
        self.entries.clear()
        self.begin, self.begin_term = snapshot.index, snapshot.term
        self.stored = self.committed = snapshot.index
        self.restoring = snapshot
