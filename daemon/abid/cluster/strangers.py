"""Those that knocked and have not said who they are: few at once, not for long, and heard in turn.

A stranger costs a socket until its first bytes have come, and then waits for its turn to shake hands: that is what
costs arithmetic (half a millisecond to four, in a thread), so handshakes begin at a bounded rate. The sources from
which strangers come have their turns one after the other. When there are too many strangers, the oldest of the source
that has the most goes. So one host that floods us holds up and pushes out itself, and not a member that knocks
meanwhile.

Who has one IPv6 address mostly has 2⁶⁴ of them (RFC 6177), and who has one IPv4 address may have its neighbours: a
source is a /64 or a /24. And who has a thousand networks must not keep members out: those who come from addresses at
which members are expected are a crowd of their own, in which each address is a source. It has half of the places and
every second turn when both crowds want them. An address proves nothing; it is only harder to have than any other.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Callable
from typing import Final

from abi.errors import AbiError
from abid.cluster.link import Link, State
from abid.cluster.refusal import Code, refused

STRANGERS_MAX: Final = 64
"""Some MB at most, and more members than knock at one moment even where a thousand do."""
UNEXPECTED_MAX: Final = STRANGERS_MAX // 2
"""From addresses at which nobody is expected, when others want the places."""
GREETING_S: Final = 5.0
"""From knocking to having said who it is. A member on the slowest line needs three round trips for it."""
HANDSHAKES_PER_S: Final = 20
"""A tenth of a slow core, and less than a hundredth of the turns of the loop meet one, whoever floods us."""
HANDSHAKES_AT_ONCE: Final = 32
"""Above that rate, when there were none for a while: most clusters come back at once without waiting."""
SOURCE_BITS: Final = {4: 24, 6: 64}
"""Of the addresses that count as one, by version of IP."""


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


class Crowd:
    """Strangers by the source that each comes from."""

    def __init__(self) -> None:
        self.count = 0
        self._here: dict[str, dict[Link, None]] = {}
        """In the order of their coming."""
        self._waiting: dict[str, dict[Link, None]] = {}
        """In that order, too; the next turn is the first source's."""

    def add(self, link: Link, source: str) -> None:
        self.count += 1
        self._here.setdefault(source, {})[link] = None

    def discard(self, link: Link, source: str) -> None:
        self.count -= 1
        for links in (self._here, self._waiting):
            of_source = links.get(source, {})
            of_source.pop(link, None)
            if not of_source:
                links.pop(source, None)

    def oldest_of_the_many(self) -> Link:
        most = max(self._here.values(), key=len)
        return next(iter(most))

    def wait(self, link: Link, source: str) -> None:
        self._waiting.setdefault(source, {})[link] = None

    def is_waiting(self) -> bool:
        """Whether anybody still wants a turn; who is going does not."""
        while self._waiting:
            source, links = next(iter(self._waiting.items()))
            link = next(iter(links))
            if link.state is State.HELD:
                return True
            del links[link]
            if not links:
                del self._waiting[source]
        return False

    def take(self) -> Link:
        """Whose turn it is, when there is one that waits. Its source's next turn is behind the others'."""
        source, links = next(iter(self._waiting.items()))
        del self._waiting[source]
        link = next(iter(links))
        del links[link]
        if links:
            self._waiting[source] = links
        return link


class Strangers:
    """The links that were accepted and belong to nobody yet. ``is_expected(address)``: whether a member may come from
    there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_expected: Callable[[str], bool]) -> None:
        self._loop = loop
        self._is_expected = is_expected
        self._timers: dict[Link, asyncio.TimerHandle] = {}
        self._places: dict[Link, tuple[Crowd, str]] = {}
        """By link: its crowd, and its source there."""
        self._expected, self._others = Crowd(), Crowd()
        self._turns = deque((self._expected, self._others))
        """The first one's turn is next, if it has any that wait."""
        self._bucket = Bucket(HANDSHAKES_PER_S, HANDSHAKES_AT_ONCE, loop.time())
        self._pump_timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, link: Link) -> bool:
        return link in self._timers

    def add(self, link: Link) -> None:
        """It knocks; whom it makes one too many goes."""
        if self._is_expected(link.address):
            crowd, source = self._expected, link.address
        else:
            crowd, source = self._others, source_of(link.address)
        self._places[link] = crowd, source
        self._timers[link] = self._loop.call_later(GREETING_S, self._on_silence, link)
        crowd.add(link, source)
        if len(self._timers) > STRANGERS_MAX:
            many = self._others if self._others.count > UNEXPECTED_MAX else self._expected
            oldest = many.oldest_of_the_many()
            self.discard(oldest)
            oldest.abort(refused(Code.BUSY, f"{STRANGERS_MAX} strangers knock, and it waited longest"))

    def wait_for_turn(self, link: Link) -> None:
        """It would shake hands."""
        place = self._places.get(link)
        if place is not None:
            crowd, source = place
            crowd.wait(link, source)
            self._pump()

    def give_time(self, link: Link, seconds: float) -> None:
        """It has said what it wants, and the answer takes a while."""
        if link in self._timers:
            self._timers[link].cancel()
            why = refused(Code.UNAVAILABLE, f"the member that was asked found no answer within {seconds:g} s")
            self._timers[link] = self._loop.call_later(seconds, self._on_silence, link, why)

    def discard(self, link: Link) -> None:
        """It is a member, or gone."""
        timer = self._timers.pop(link, None)
        if timer is not None:
            timer.cancel()
            crowd, source = self._places.pop(link)
            crowd.discard(link, source)

    def close(self) -> None:
        for link in list(self._timers):
            link.abort(refused(Code.BUSY, "the daemon is stopping"))
        if self._pump_timer is not None:
            self._pump_timer.cancel()

    def _on_silence(self, link: Link, why: AbiError | None = None) -> None:
        """Its, or ours (``why``)."""
        link.refuse(why or refused(Code.SILENT, f"it did not say who it is within {GREETING_S:g} s"))

    def _pump(self) -> None:
        """Let begin whose turn it is."""
        if self._pump_timer is not None:
            return
        while (crowd := next((one for one in self._turns if one.is_waiting()), None)) is not None:
            if not self._bucket.take(self._loop.time()):
                self._pump_timer = self._loop.call_later(self._bucket.wait_s(), self._pump_again)
                return
            self._turns.remove(crowd)
            self._turns.append(crowd)
            crowd.take().begin()

    def _pump_again(self) -> None:
        self._pump_timer = None
        self._pump()


def source_of(address: str) -> str:
    """The network whose addresses count as one; an address that is none is its own."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, SOURCE_BITS[ip.version]), strict=False))
