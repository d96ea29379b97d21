"""Which of the beacons that arrive are worth opening: the cheap questions, asked before any cryptography.

A beacon's number is its sender's boot counter and, below it, how many packets that boot has sent; so the numbers of one
sender only ever rise, over restarts too. What is not above the highest number that was **opened** from its sender is a
copy: of ours that the network gave back to us, of one that came by broadcast and by multicast, or of one that somebody
recorded. A number that was merely claimed changes nothing, so that nobody without the key can have a sender ignored.

What is left may still be forged, with a number that is higher each time. Opening is therefore rationed, in all and by
where a packet says that it comes from. Who forges that too, on the same network, can use up the ration, and then
beacons are not heard while this goes on: peers that were met, seeds and what a person registers are dialled as
before.
"""

from __future__ import annotations

from typing import Final

SECOND_NS: Final = 1_000_000_000
OPENINGS_PER_SECOND_MAX: Final = 500
"""Opening a forged packet costs some 10 µs: half a percent of a core. A cluster of 1,000 hosts says 200 new things a
second at the usual interval."""
OPENINGS_PER_SOURCE_MAX: Final = 50
"""A second. A host says one thing an interval, and a few more while it is asked; several may share an address."""
SENDERS_MAX: Final = 4_096
"""Whose numbers are remembered; four times as many hosts as a cluster is made for. Only who has the key gets in."""


class Hearing:
    """What was heard of whom."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        """The highest number opened of each sender, whoever was heard last at the end."""
        self._second = -1
        self._opened = 0
        self._by_source: dict[str, int] = {}

    def is_news(self, sender: bytes, number: int) -> bool:
        return number > self._numbers.get(sender, -1)

    def may_open(self, source: str, now: int) -> bool:
        """Take one opening from the ration of this second, if there is one left for ``source`` (a host)."""
        second = now // SECOND_NS
        if second != self._second:
            self._second, self._opened = second, 0
            self._by_source.clear()
        used = self._by_source.get(source, 0)
        if self._opened >= OPENINGS_PER_SECOND_MAX or used >= OPENINGS_PER_SOURCE_MAX:
            return False
        self._opened += 1
        self._by_source[source] = used + 1
        return True

    def note(self, sender: bytes, number: int) -> None:
        """This one was opened, or sent by us."""
        self._numbers.pop(sender, None)
        self._numbers[sender] = number
        if len(self._numbers) > SENDERS_MAX:
            del self._numbers[next(iter(self._numbers))]

    def highest(self, sender: bytes) -> int:
        """-1: nothing was heard of it."""
        return self._numbers.get(sender, -1)
