"""When Raft's rules hear that time passes: ticks of 110 ms, without waking for those that change nothing.

A leader has something to do at each heartbeat. A follower only counts, and in vain as long as it hears its leader,
each of whose words begins the count anew. So it wakes for the tick at which it would stand for election, not ten times
a second, and what passed before is counted then, or sooner when a message comes whose meaning depends on it. Each host
keeps a grid of its own, from when it started: hosts that hear a leader's last word in the same moment do not stand in
the same moment.

A process that was stopped or starved has heard nobody for a reason of its own. One that wakes late for its tick puts it
off by half a tick, in which what came in meanwhile is read; one that wakes very late counts only half of what was left.
Either way it stands in the end, however late it is each time.
"""

from __future__ import annotations

from typing import Final

from abid.core.raft.raft import Raft

TICK_S: Final = 0.11
"""Two to a heartbeat: four and a half of those a second keep an idle leader under half a percent of a slow core."""
EARLY_S: Final = 0.002
"""A loop's timers ring by whole milliseconds, of a time that it looked up before."""

STOPPED_S: Final = 3 * TICK_S
"""Late by more is no uneven load."""


class Ticking:
    """Of one member. Times are the loop's."""

    def __init__(self, raft: Raft, now: float) -> None:
        self._raft = raft
        self._counted_at = now
        """The tick up to which the rules have heard of time."""

    @property
    def next_at(self) -> float:
        """When to wake, if nothing happens before."""
        return self._counted_at + self._raft.ticks_left * TICK_S

    def catch_up(self, now: float) -> None:
        """Something is about to happen: first the rules hear of the ticks that passed, but not of one that acts."""
        passed = min(int((now - self._counted_at) / TICK_S), self._raft.ticks_left - 1)
        if passed > 0 and now <= self.next_at + TICK_S:
            self._raft.pass_ticks(passed)
            self._counted_at += passed * TICK_S

    def begin_anew(self, now: float) -> None:
        """The leader was heard: what passed before counts for nothing."""
        self._counted_at += int((now - self._counted_at) / TICK_S) * TICK_S

    def wake(self, now: float) -> None:
        """It is ``next_at``, or was: it moves with each word of the leader."""
        raft, due = self._raft, self.next_at
        if now < due - EARLY_S:
            return
        left = raft.ticks_left
        if left > 1 and now > due + TICK_S:
            raft.pass_ticks(left // 2 if now > due + STOPPED_S else left - 1)
            self._counted_at = now - TICK_S / 2
            return
        raft.pass_ticks(left - 1)
        self._counted_at = max(due, now - TICK_S / 2)
        raft.tick()
