"""Which address is dialled when: a bounded table of addresses, each with its own back-off.

Back-off is exponential with full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): after its n-th failure
an address rests for a uniform draw from 0 to min(cap, base · 2ⁿ⁻¹), in any case until a second after its last dial.
Where addresses come from is ranked, and each origin has dials of its own: a thousand remembered hosts that are gone
for good do not keep the one that was just heard waiting.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import msgspec

SECOND_NS: Final = 1_000_000_000
DIAL_SPACING_NS: Final = SECOND_NS
"""Between two dials of one address, whatever anybody says: nobody can be made to flood it through us."""
BACKOFF_BASE_NS: Final = SECOND_NS
BACKOFF_MAX_NS: Final = 60 * SECOND_NS
"""A host that comes back without a beacon is found within a minute, at the cost of one packet a minute until then."""
STAGGER_NS: Final = SECOND_NS // 4
"""Between first dials of the addresses of one host: the better ones get a head start (RFC 8305, section 5)."""
DIALS_PER_ORIGIN_MAX: Final = 4
"""Under way at a time; twenty in all. Each may wait ten seconds for an answer that never comes."""
CANDIDATES_MAX: Final = 4_096
"""Addresses in the table: a cluster of 1,000 hosts with four each."""


class Address(NamedTuple):
    host: str
    """An IPv4 or IPv6 address as text; never a name."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Origin(enum.IntEnum):
    """Where an address came from, in the order of trust: a proposal from further up is not lowered by one from
    below."""

    REMEMBERED = 0
    """Met in an earlier life."""
    CONFIGURED = 1
    """A seed, or what its name resolves to."""
    REGISTERED = 2
    """A person said it: dialled although enough others are connected."""
    HEARD = 3
    """From a beacon."""
    LISTED = 4
    """From the hook."""


class Candidate(msgspec.Struct):
    address: Address
    origin: Origin
    due: int
    node: bytes = b""
    """Who was met there, or says to be there; empty: not known."""
    failures: int = 0
    """Since it was last met."""
    dialled_at: int = -DIAL_SPACING_NS
    is_dialling: bool = False
    is_own: bool = False
    """We met ourselves there."""

    @property
    def ready_at(self) -> int:
        return max(self.due, self.dialled_at + DIAL_SPACING_NS)


class Dialling:
    """The table. Times are monotonic, in ns."""

    def __init__(self, own: bytes) -> None:
        self.candidates: dict[Address, Candidate] = {}
        # Of these there are few, so that a beacon costs the same in a cluster of a thousand as in one of three.
        self._registered: dict[Address, Candidate] = {}
        self._dropped: dict[Address, Candidate] = {}
        self._own = own
        self._under_way = dict.fromkeys(Origin, 0)

    def propose(self, address: Address, origin: Origin, now: int, due: int, node: bytes = b"") -> bool:
        """Dial this address from ``due`` on. False: the table is full of better ones.

        One that is known keeps its back-off; a proposal is no reason to dial again at once.
        """
        known = self.candidates.get(address)
        if known is None:
            if len(self.candidates) >= CANDIDATES_MAX and not self._evict(origin, now):
                return False
            known = self.candidates[address] = Candidate(address, origin, due, node)
        elif not known.is_dialling:  # its origin counts it among the dials under way
            known.origin = min(known.origin, origin)
        known.node = node or known.node
        self._dropped.pop(address, None)
        if origin == Origin.REGISTERED:
            self._registered[address] = known
        return True

    def hasten(self, address: Address, due: int) -> None:
        """There is reason to believe that it answers now: do not wait longer than until ``due``."""
        known = self.candidates[address]
        known.due = min(known.due, due)

    def hasten_all(self, now: int) -> None:
        """The world has changed (we slept, a link came up): what failed before says nothing about now."""
        for candidate in self.candidates.values():
            candidate.due, candidate.failures, candidate.is_own = min(candidate.due, now), 0, False

    def start(self, now: int, connected: Collection[bytes], is_enough: bool) -> list[Candidate]:
        """Those to dial now. Each is under way until ``on_dialled``."""
        self._sweep(now)
        chosen = []
        ready = [one for one in self._wanted(connected, is_enough) if one.ready_at <= now]
        for candidate in sorted(ready, key=lambda one: one.ready_at):
            if self._under_way[candidate.origin] < DIALS_PER_ORIGIN_MAX:
                self.begin(candidate.address, now)
                chosen.append(candidate)
        return sorted(chosen, key=lambda one: one.origin)

    def begin(self, address: Address, now: int) -> None:
        """It is being dialled, until ``on_dialled``; of several dials of it at a time, until the first of them ends."""
        known = self.candidates.get(address)
        if known is not None and not known.is_dialling:
            self._under_way[known.origin] += 1
            known.is_dialling, known.dialled_at = True, now

    def next_at(self, connected: Collection[bytes], is_enough: bool) -> int | None:
        """When ``start`` has something next, if nothing else happens."""
        wanted = self._wanted(connected, is_enough)
        free = (one.ready_at for one in wanted if self._under_way[one.origin] < DIALS_PER_ORIGIN_MAX)
        return min(free, default=None)

    def _wanted(self, connected: Collection[bytes], is_enough: bool) -> Iterator[Candidate]:
        for one in (self._registered if is_enough else self.candidates).values():
            if one.is_dialling or one.is_own or one.address in self._dropped or one.node in connected:
                continue
            if not (is_enough and one.node):
                yield one

    def on_dialled(self, address: Address, node: bytes | None, now: int, lot: float) -> None:
        """A dial ended: ``node`` was met, or None. ``lot`` is a draw from [0, 1)."""
        known = self.candidates.get(address)
        if known is None or not known.is_dialling:
            return
        known.is_dialling = False
        self._under_way[known.origin] -= 1
        if node is None:
            longest = min(BACKOFF_MAX_NS, BACKOFF_BASE_NS << min(known.failures, 16))
            known.failures += 1
            known.due = now + int(lot * longest)
        else:
            known.node, known.failures, known.is_own = node, 0, node == self._own

    def on_closed(self, node: bytes, now: int, lot: float) -> None:
        """A connection ended. Both ends know it in the same moment: a draw keeps them from dialling in the same one."""
        for candidate in self.candidates.values():
            if candidate.node == node:
                candidate.due = now + int(lot * BACKOFF_BASE_NS)

    def drop(self, address: Address) -> None:
        """Nobody proposes it any more. It goes when its spacing is over: who forgot it sooner could dial it again too
        soon."""
        if address in self.candidates:
            self._dropped[address] = self.candidates[address]

    def forget(self, node: bytes) -> None:
        """It is no member any more."""
        self._dropped.update((one.address, one) for one in self.candidates.values() if one.node == node)

    def _sweep(self, now: int) -> None:
        for one in list(self._dropped.values()):
            if not one.is_dialling and one.dialled_at + DIAL_SPACING_NS <= now:
                self._remove(one.address)

    def _remove(self, address: Address) -> None:
        del self.candidates[address]
        self._dropped.pop(address, None)
        self._registered.pop(address, None)

    def _evict(self, origin: Origin, now: int) -> bool:
        """Make room for one of this origin, at the cost of one that is not better. What was dialled just now stays: who
        forgot it would dial it again too soon."""
        worse = [
            one
            for one in self.candidates.values()
            if one.origin >= origin and not one.is_dialling and one.dialled_at + DIAL_SPACING_NS <= now
        ]
        if not worse:
            return False
        self._remove(max(worse, key=lambda one: (one.origin, one.failures)).address)
        return True
