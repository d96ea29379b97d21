"""How long members wait for a word of their leader: long against what an election takes where they are.

Raft elects steadily as long as *broadcast time ≪ election timeout* (paper, 5.6): to say something to the others and to
have their answers, writing included, has to take a tenth of the timeout, or the next one stands while votes for the
first are still on their way. In one building both are milliseconds, and the shortest times are right; where links or
disks take tens of milliseconds, the times are stretched, to LONGEST at most.

Hosts need not agree on them: safety does not depend on timing (paper, 5.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from abid.core.raft.interface import Settings

FACTOR: Final = 10
"""The paper's order of magnitude."""
LONGEST: Final = 5
"""Times the shortest: where all is slow, two seconds without a leader are better than none for good."""
WRITES: Final = 64
"""As many of the last writes are looked at. Their median: one slow one says nothing about the next."""


class Patience:
    """``shortest`` are the settings of a quick network; ``tick_s`` is the length of a tick in seconds."""

    def __init__(self, shortest: Settings, tick_s: float) -> None:
        self._shortest = shortest
        self._tick_s = tick_s
        self._writes: deque[float] = deque(maxlen=WRITES)

    def note_write(self, took_s: float) -> None:
        """One has ended, after so many seconds."""
        self._writes.append(took_s)

    def settings(self, round_trips_s: Sequence[float]) -> Settings:
        """For now; in seconds, the round trips to those voters that can be reached. The slowest counts: it may be the
        one whose vote is needed. A leader says as often as before that it is there."""
        shortest = self._shortest
        writes = sorted(self._writes)
        write_s = writes[len(writes) // 2] if writes else 0.0
        broadcast_s = max(round_trips_s, default=0.0) + write_s
        # Rounded up, but for what a clock cannot tell.
        wanted = -int(-(FACTOR * broadcast_s / self._tick_s - 1e-6) // 1)
        ticks = min(max(wanted, shortest.election_ticks), LONGEST * shortest.election_ticks)
        if ticks == shortest.election_ticks:
            return shortest
        return msgspec.structs.replace(
            shortest,
            election_ticks=ticks,
            quorum_ticks=shortest.quorum_ticks * ticks // shortest.election_ticks,
            rank_ticks=shortest.rank_ticks * ticks // shortest.election_ticks,
        )
