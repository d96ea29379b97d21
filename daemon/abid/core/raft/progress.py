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

    __slots__ = (
        "inflight",
        "inflight_max",
        "is_active",
        "is_held",
        "looks",
        "match",
        "mode",
        "next",
        "snapshot",
        "told_commit",
    )

    def __init__(self, next_index: int, inflight_max: int = 256, *, is_active: bool = False) -> None:
        self.match = 0
        self.next = next_index
        self.mode = Mode.PROBE
        self.inflight: deque[int] = deque()
        """The last index of each message with entries that was not answered."""
        self.inflight_max = inflight_max
        self.is_held = False
        """A message is on its way, and another would be too much before an answer or a heartbeat's."""
        self.is_active = is_active
        """It has been heard since the last look (check-quorum)."""
        self.snapshot = 0
        """What it will have when the snapshot that was sent arrives."""
        self.looks = 0
        """How often the leader looked while that was on its way."""
        self.told_commit = 0
        """The highest commit index that was sent to it."""

    def __repr__(self) -> str:
        return f"<{self.mode.value}, has {self.match}, next {self.next}>"

    @property
    def is_paused(self) -> bool:
        return self.is_held or self.mode == Mode.SNAPSHOT

    @property
    def is_full(self) -> bool:
        return len(self.inflight) >= self.inflight_max

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        self.is_held = False
        self.snapshot = self.looks = 0
        self.inflight.clear()

    def probe(self) -> None:
        """Behind a snapshot that may have arrived, it begins after that."""
        self.next = max(self.match, self.snapshot) + 1
        self._enter(Mode.PROBE)
        self.told_commit = min(self.told_commit, self.next - 1)

    def replicate(self) -> None:
        self._enter(Mode.REPLICATE)
        self.next = self.match + 1

    def send_snapshot(self, index: int) -> None:
        self._enter(Mode.SNAPSHOT)
        self.snapshot = self.told_commit = index
        self.next = index + 1

    def sent(self, last_index: int, commit: int) -> None:
        """An append went out; ``last_index`` is that of its last entry, 0 if it had none."""
        if self.mode == Mode.REPLICATE:
            if last_index:
                self.next = last_index + 1
                self.inflight.append(last_index)
            self.is_held = self.is_full
        elif last_index:
            self.is_held = True
        self.told_commit = max(self.told_commit, commit)

    def has(self, index: int) -> bool:
        """It stored all up to here. False if that is no news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.is_held = False
        return True

    def answered(self, index: int) -> None:
        """Messages up to here have been answered."""
        while self.inflight and self.inflight[0] <= index:
            self.inflight.popleft()

    def refused(self, index: int, hint: int) -> bool:
        """It has no entry that agrees at ``index``, and perhaps one at ``hint``. False for an answer that is late."""
        if self.mode == Mode.REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != index:
                return False
            self.next = max(min(index, hint + 1), self.match + 1)
            self.is_held = False
        self.told_commit = min(self.told_commit, self.next - 1)
        return True

    def may_learn_commit(self, committed: int) -> bool:
        """Whether an append without entries would tell it something new that it can use."""
        return self.told_commit < committed and self.told_commit < self.next - 1


def tracked(
    known: Mapping[int, Progress], configuration: Configuration, last_index: int, inflight_max: int = 256
) -> dict[int, Progress]:
    """Progress of all members, by number. Who is new begins at our own last entry, and as though we had just heard of
    it: an answer will say where it is."""
    return {
        node: known.get(node) or Progress(max(last_index, 1), inflight_max, is_active=True)
        for node in sorted(configuration.members)
    }
