"""Those that knocked and have not said who they are: few at once, not for long, and heard in turn.

A stranger costs a socket until its first bytes have come, and then waits for its turn to shake hands: that is what
costs arithmetic (half a millisecond to four, in a thread), so handshakes begin at a bounded rate. The addresses from
which strangers come have their turns one after the other. When there are too many strangers, the oldest of the address
that has the most goes. So one host that floods us holds up and pushes out itself, and not a member that knocks
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from abid.cluster.link import Link, State
from abid.cluster.refusal import Code, refused

STRANGERS_MAX: Final = 64
"""Some MB at most, and more members than knock at one moment even where a thousand do."""
GREETING_S: Final = 5.0
"""From knocking to having said who it is. A member on the slowest line needs three round trips for it."""
HANDSHAKES_PER_S: Final = 20
"""A tenth of a slow core, and less than a hundredth of the turns of the loop meet one, whoever floods us."""
HANDSHAKES_AT_ONCE: Final = 32
"""Above that rate, when there were none for a while: most clusters come back at once without waiting."""


class Bucket:
    """So many a second and so many at once (a token bucket). Times in seconds of any steady clock."""

    def __init__(self, per_s: float, at_once: int, now: float) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._full = float(at_once)
        self._then = now

    def take(self, now: float) -> bool:
        """One, if there is one."""
        self._full = min(self._at_once, self._full + (now - self._then) * self._per_s)
        self._then = now
        if self._full < 1 - 1e-6:  # what sums of fractions lack is not worth another turn
            return False
        self._full -= 1
        return True

    def wait_s(self) -> float:
        """Until there is one, after ``take`` has found none."""
        return (1 - self._full) / self._per_s


class Strangers:
    """The links that were accepted and belong to nobody yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timers: dict[Link, asyncio.TimerHandle] = {}
        self._here: dict[str, dict[Link, None]] = {}
        """By address, in the order of their coming."""
        self._waiting: dict[str, deque[Link]] = {}
        """By address; the next turn is the first one's."""
        self._bucket = Bucket(HANDSHAKES_PER_S, HANDSHAKES_AT_ONCE, loop.time())
        self._pump_timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, link: Link) -> bool:
        return link in self._timers

    def add(self, link: Link) -> None:
        """It knocks; whom it makes one too many goes."""
        if len(self._timers) >= STRANGERS_MAX:
            oldest = self._oldest_of_the_many()
            self.discard(oldest)
            oldest.abort(refused(Code.BUSY, f"{STRANGERS_MAX} strangers knock, and it waited longest"))
        self._timers[link] = self._loop.call_later(GREETING_S, self._on_silence, link)
        self._here.setdefault(link.address, {})[link] = None

    def wait_for_turn(self, link: Link) -> None:
        """It would shake hands."""
        self._waiting.setdefault(link.address, deque()).append(link)
        self._pump()

    def give_time(self, link: Link, seconds: float) -> None:
        """It has said what it wants, and the answer takes a while."""
        if link in self._timers:
            self._timers[link].cancel()
            self._timers[link] = self._loop.call_later(seconds, self._on_silence, link)

    def discard(self, link: Link) -> None:
        """It is a member, or gone."""
        timer = self._timers.pop(link, None)
        if timer is not None:
            timer.cancel()
            links = self._here[link.address]
            del links[link]
            if not links:
                del self._here[link.address]

    def close(self) -> None:
        for link in list(self._timers):
            link.abort(refused(Code.BUSY, "the daemon is stopping"))
        if self._pump_timer is not None:
            self._pump_timer.cancel()

    def _oldest_of_the_many(self) -> Link:
        most = max(self._here.values(), key=len)
        return next(iter(most))

    def _on_silence(self, link: Link) -> None:
        link.refuse(refused(Code.SILENT, f"it did not say who it is within {GREETING_S:g} s"))

    def _pump(self) -> None:
        """Let begin whose turn it is."""
        if self._pump_timer is not None:
            return
        while self._waiting:
            address, links = next(iter(self._waiting.items()))
            if links[0].state is not State.HELD:
                links.popleft()  # it went meanwhile
                if not links:
                    del self._waiting[address]
            elif self._bucket.take(self._loop.time()):
                del self._waiting[address]
                link = links.popleft()
                if links:
                    self._waiting[address] = links  # behind the others
                link.begin()
            else:
                self._pump_timer = self._loop.call_later(self._bucket.wait_s(), self._pump_again)
                return

    def _pump_again(self) -> None:
        self._pump_timer = None
        self._pump()
