"""What is due when. One time for each key; a new time for a key replaces the old."""

from __future__ import annotations

import enum
import heapq


class Due(enum.IntEnum):
    PROBE = 0
    """The next in order."""
    REVISIT = 1
    """One of the dead."""
    ASK = 2
    """The probed has not answered: ask others."""
    SUSPECT = 3
    """Nor did they reach it."""
    SUSPICION = 4
    """Has lasted long enough."""
    HELP = 5
    """The one we probed for another has not answered."""


Key = tuple[Due, int, int]
"""What, of which member, for which member; 0 where that says nothing."""

NEVER = 1 << 62


class Timers:
    """A heap whose outdated entries are passed over when they come to the top: each does so within its own time."""

    __slots__ = ("_at", "_heap", "_serial")

    def __init__(self) -> None:
        self._at: dict[Key, int] = {}
        self._heap: list[tuple[int, int, Key]] = []
        self._serial = 0

    def set(self, key: Key, at: int) -> None:
        self._at[key] = at
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, key))

    def drop(self, key: Key) -> None:
        self._at.pop(key, None)

    def at(self, key: Key) -> int:
        return self._at.get(key, NEVER)

    @property
    def next_at(self) -> int:
        heap = self._heap
        while heap:
            at, _, key = heap[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(heap)
        return NEVER

    def take(self, clock: int) -> Key | None:
        """The first that is due by now; its timer is gone."""
        if self.next_at > clock:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._at[key]
        return key
