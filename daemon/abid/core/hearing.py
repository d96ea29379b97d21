"""Which of the beacons that arrive are worth opening: the cheap questions, asked before any cryptography.

A beacon's number is its sender's boot counter and, below it, how many packets that boot has sent; so the numbers of one
sender only ever rise, over restarts too. What is not above the highest number that was **opened** from its sender is a
copy: of ours that the network gave back to us, of one that came by broadcast and by multicast, or of one that somebody
recorded. A number that was merely claimed changes nothing, so that nobody without the key can have a sender ignored.
Who has the key, a host that was removed, say, can: by a number far above those of the sender whose name it uses. So a
number counts only while it is no more than ``BOOTS_AHEAD_MAX`` starts ahead of what was heard before, and a sender of
whom nothing new was heard for ``FORGOTTEN_NS`` begins anew with whatever it says; a copy is believed again then, too,
and has an address dialled where somebody was.

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
COUNT_BITS: Final = 32
"""Of a number, for the packets of one boot. At ten a second they last 13 years."""
NUMBER_MAX: Final = (1 << 31 + COUNT_BITS) - 1
"""Two milliards of starts are no host's; half of what a packet can carry is left for those who count on from here."""
BOOTS_AHEAD_MAX: Final = 1_024
"""Starts of a sender since it was heard: one a second, and a host is heard again before it is forgotten."""
FORGOTTEN_NS: Final = 60 * SECOND_NS
"""Twelve of the usual intervals; who lives is heard in that time."""


class Hearing:
    """What was heard of whom. ``forgotten_ns`` is more than the interval in which others are heard."""

    def __init__(self, forgotten_ns: int = FORGOTTEN_NS) -> None:
        self._heard: dict[bytes, tuple[int, int]] = {}
        """The highest number opened of each sender and when that was, whoever was heard last at the end."""
        self._forgotten_ns = forgotten_ns
        self._second = -1
        self._opened = 0
        self._by_source: dict[str, int] = {}

    def is_news(self, sender: bytes, number: int, now: int) -> bool:
        known = self._heard.get(sender)
        if known is None or now - known[1] >= self._forgotten_ns:
            return number <= NUMBER_MAX
        return known[0] < number <= known[0] + (BOOTS_AHEAD_MAX << COUNT_BITS)

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

    def note(self, sender: bytes, number: int, now: int) -> None:
        """This one was opened."""
        self._heard.pop(sender, None)
        self._heard[sender] = number, now
        if len(self._heard) > SENDERS_MAX:
            del self._heard[next(iter(self._heard))]
