"""What a leader knows of each member's log (paper, 5.3; thesis, 10.2.1 on pipelining)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping

from abid.core.raft.configuration import Configuration


class Mode(enum.Enum):
    PROBE = "probe"
    """Where its log and ours part is not known: one message at a time, until an answer says."""
    REPLICATE = "replicate"
    """Its log is known to agree: entries go out ahead of the answers."""
    SNAPSHOT = "snapshot"
    """It needs what our log no longer holds: nothing goes out before the snapshot has arrived, or failed."""


class Progress:
    """``match``: the highest index it is known to have stored. ``next``: the first that goes out next."""

    __slots__ = ("inflight", "is_active", "is_paused", "match", "mode", "next", "sent_commit", "snapshot_index")

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.mode = Mode.PROBE
        self.is_paused = False
        """A message is on its way, and another would be too much."""
        self.is_active = True
        """It has been heard since the last look (check-quorum)."""
        self.snapshot_index = 0
        """What it will have when the snapshot that was sent arrives."""
        self.sent_commit = 0
        """The highest commit index that was told to it."""
        self.inflight: deque[int] = deque()
        """The last index of each message with entries that was not answered."""

    def __repr__(self) -> str:
        return f"<{self.mode.value}, has {self.match}, next {self.next}>"


def tracked(known: Mapping[int, Progress], configuration: Configuration, last_index: int) -> dict[int, Progress]:
    """Progress of all members. Who is new begins at our own last entry: an answer will say where it really is."""
    return {node: known.get(node) or Progress(max(last_index, 1)) for node in sorted(configuration.members)}
