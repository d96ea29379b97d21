"""Where to look for members when none is connected: names, then subnets, then the hook, each ever more rarely.

A host that is alone asks its sources in the order of DESIGN: each later one gets its turn only if the earlier have not
ended the loneliness by then. When somebody is connected, subnets and hook rest: the others will be heard of from it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final

SECOND_NS: Final = 1_000_000_000
SEARCH_MAX_NS: Final = 600 * SECOND_NS
"""Between two searches of one kind, after many that found nobody: a lonely host costs its network almost nothing."""
NAMES_MAX_NS: Final = 300 * SECOND_NS
"""Names are looked up again also when all is well, since what they stand for moves."""
PROBES_AT_ONCE_MAX: Final = 16
PROBES_SPACING_NS: Final = SECOND_NS // 4
"""64 probes a second: a /24 is asked in four seconds, and no switch or firewall takes that for a storm."""
SUBNET_ADDRESSES_MAX: Final = 1 << 16
"""Of one subnet (a /16): a quarter of an hour's probes. Larger networks are for seeds and the hook."""

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_subnets(texts: Sequence[str]) -> tuple[Subnet, ...]:
    """Raises ValueError, with a sentence, for what is no subnet and for one that is too large."""
    subnets: list[Subnet] = []
    for text in texts:
        try:
            subnet = ipaddress.ip_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is no subnet; 192.168.1.0/24 is one") from None
        if subnet.num_addresses > SUBNET_ADDRESSES_MAX:
            raise ValueError(f"{text} has {subnet.num_addresses} addresses, {SUBNET_ADDRESSES_MAX} are the most")
        subnets.append(subnet)
    return tuple(subnets)


class Pace:
    """Something done at first soon, then each time after twice as long, up to ``longest``. Each wait is drawn from its
    second half, so that hosts that started together do not stay together."""

    def __init__(self, first: int, longest: int) -> None:
        self.at = 0
        self._first, self._longest = first, longest
        self._wait = first

    def restart(self, at: int) -> None:
        self.at, self._wait = at, self._first

    def is_due(self, now: int, lot: float) -> bool:
        """True: it is to be done now, and the next time is set."""
        if now < self.at:
            return False
        self.at = now + self._wait // 2 + int(lot * (self._wait // 2))
        self._wait = min(self._longest, self._wait * 2)
        return True


class Scan:
    """The hosts of the subnets, a few at a time."""

    def __init__(self, subnets: Sequence[Subnet]) -> None:
        self._subnets = subnets
        self._place = 0
        self._length = sum(subnet.num_addresses for subnet in subnets)

    def __bool__(self) -> bool:
        return self._length > 0

    @property
    def is_complete(self) -> bool:
        return self._place >= self._length

    def restart(self) -> None:
        self._place = 0

    def next(self) -> list[str]:
        """The next hosts; none when all were named."""
        found: list[str] = []
        while len(found) < PROBES_AT_ONCE_MAX and not self.is_complete:
            host = self._host(self._place)
            self._place += 1
            if host:
                found.append(host)
        return found

    def _host(self, place: int) -> str:
        """Empty for the names of the subnet itself and of all its hosts."""
        for subnet in self._subnets:
            if place < subnet.num_addresses:
                ends = (0, subnet.num_addresses - 1) if subnet.num_addresses > 2 else ()
                return "" if place in ends else str(subnet[place])
            place -= subnet.num_addresses
        raise IndexError(place)


class Search:
    """What is due, while nobody is connected (``is_lonely``)."""

    def __init__(self, subnets: Sequence[Subnet], has_names: bool, has_hook: bool, interval: int) -> None:
        self.has_names, self.has_hook = has_names, has_hook
        self.scan = Scan(subnets)
        self._interval = interval
        self._names = Pace(2 * interval, NAMES_MAX_NS)
        self._scans = Pace(4 * interval, SEARCH_MAX_NS)
        self._hook = Pace(4 * interval, SEARCH_MAX_NS)
        self._probe_at: int | None = None

    def restart(self, now: int) -> None:
        """Alone, from now on."""
        self._names.restart(now)
        self._scans.restart(now + self._interval // 4)
        self._hook.restart(now + self._interval)
        self._probe_at = None

    def wants_names(self, now: int, lots: Callable[[], float]) -> bool:
        return self.has_names and self._names.is_due(now, lots())

    def wants_hook(self, now: int, lots: Callable[[], float], is_lonely: bool) -> bool:
        return self.has_hook and is_lonely and self._hook.is_due(now, lots())

    def probes(self, now: int, lots: Callable[[], float], is_lonely: bool) -> list[str]:
        """The hosts to ask now, a few at a time."""
        if not self.scan or not is_lonely:
            return []
        if self._probe_at is None and self._scans.is_due(now, lots()):
            self.scan.restart()
            self._probe_at = now
        if self._probe_at is None or now < self._probe_at:
            return []
        found = self.scan.next()
        self._probe_at = None if self.scan.is_complete else now + PROBES_SPACING_NS
        return found

    def next_at(self, is_lonely: bool) -> int | None:
        times = [self._names.at] if self.has_names else []
        if is_lonely and self.has_hook:
            times.append(self._hook.at)
        if is_lonely and self.scan:
            times.append(self._scans.at if self._probe_at is None else self._probe_at)
        return min(times, default=None)
