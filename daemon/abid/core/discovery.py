"""Finding the members of one's cluster on a network: who is told where we are, and which addresses are dialled when.

Discovery never founds and never admits. It only proposes an address to dial; who answers there is proved by the dial
(mutual TLS). So nothing that arrives here can do more than have one address dialled once a second.

Its sources, in order: peers remembered on disk, seeds and what people registered, beacons on the LAN, the hook. A
**beacon** says where its sender is reached. One is sent at the start and then every interval, so whichever of two
hosts starts first, the one that is there hears the other at once, and the other hears it within an interval. Hearing
a beacon of somebody who is not connected proposes its addresses, best first; the one with the smaller id dials at
once, the other a moment later if that came to nothing. A **question** is a beacon sent to one host only (a subnet is
searched with them); who hears one answers with a beacon to where it came from.

Nobody needs a connection to everybody: with ``connections_wanted`` of them only what a person registered is dialled,
and the others find us. A lonely host searches (``abid.core.searching``).

Time (monotonic, ns) and lots (draws from [0, 1)) are parameters. Events return effects, to be done in order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec

from abid.core.dialling import STAGGER_NS, Address, Dialling, Origin
from abid.core.hearing import BOOTS_AHEAD_MAX, COUNT_BITS, FORGOTTEN_NS, NUMBER_MAX, Hearing
from abid.core.searching import Search, Subnet

SECOND_NS: Final = 1_000_000_000
BEACON_ADDRESSES_MAX: Final = 8
"""Of one host. More interfaces than that are virtual ones, which are ranked last."""
BEACON_SENDERS_MAX: Final = 4_096
"""Whose addresses are kept; four times as many hosts as a cluster is made for."""
REMEMBERED_MAX: Final = 1_024
"""Addresses on disk, those met longest ago forgotten first. One that answers is enough to find all others."""
ANSWERS_PER_SECOND_MAX: Final = 32
"""Questions answered. Each costs a packet; more are asked only by somebody who scans for no good."""
INTERVALS_TO_FORGET: Final = 12
"""A sender of whom nothing new was heard for so long begins anew; see ``hearing``."""


class Beacon(msgspec.Struct, frozen=True, array_like=True):
    """What a host says of itself, sealed with the cluster's key. No name."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    """Where it listens (TCP)."""
    addresses: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=BEACON_ADDRESSES_MAX)]
    """Its IPv4 (4 bytes) and IPv6 (16) addresses, the best first."""
    is_question: bool = False
    """It was sent to one host, and asks for a beacon back."""


class Peer(msgspec.Struct, frozen=True):
    """What is kept on disk of an address."""

    address: Address
    node: bytes = b""
    """Who was met there last; empty: nobody yet."""
    is_registered: bool = False
    """A person said it; it is never forgotten by itself."""


class Announce(msgspec.Struct, frozen=True):
    """Send a beacon of this number to everybody on the LAN."""

    number: int


class Ask(msgspec.Struct, frozen=True):
    """Send a question of this number to each of these hosts."""

    number: int
    hosts: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True):
    """Send a beacon of this number to where a question came from."""

    number: int
    to: Address


class Dial(msgspec.Struct, frozen=True):
    """Dial, then say ``on_dialled``. ``node`` is who is expected there, if anybody is."""

    address: Address
    node: bytes


class ResolveNames(msgspec.Struct, frozen=True):
    """Look up the seeds that are names, and ``propose`` what they stand for."""


class RunHook(msgspec.Struct, frozen=True):
    """Run the hook, and ``propose`` what it prints."""


class Remember(msgspec.Struct, frozen=True):
    """``peers`` changed: write it."""


class CopySeen(msgspec.Struct, frozen=True):
    """Another host uses our identity: it sent a beacon that we did not send."""

    source: str


Effect = Announce | Ask | Answer | Dial | ResolveNames | RunHook | Remember | CopySeen


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    interval_ns: int = 5 * SECOND_NS
    connections_wanted: int = 8
    """As many as a host sends its load to; enough that a cluster never falls apart."""
    subnets: tuple[Subnet, ...] = ()
    has_names: bool = False
    has_hook: bool = False


class Discovery:
    """One host's. ``boot`` is counted up at each of its starts."""

    def __init__(self, own: bytes, boot: int, settings: Settings, lots: Callable[[], float]) -> None:
        self.own = own
        self.settings = settings
        self.dialling = Dialling(own)
        self.connected: set[bytes] = set()
        self.peers: dict[Address, Peer] = {}
        """What is on disk, whoever was met last at the end."""
        self._announced: dict[bytes, tuple[Address, ...]] = {}
        """By beacon, of those that are heard."""
        self._hearing = Hearing(max(FORGOTTEN_NS, INTERVALS_TO_FORGET * settings.interval_ns))
        self._lots = lots
        self._number = boot << COUNT_BITS
        self._number_max = min(NUMBER_MAX, boot + BOOTS_AHEAD_MAX << COUNT_BITS)
        """Of a copy of this host, above whose numbers we count on."""
        self._copy = 0
        """The highest number that came under our name and was not ours."""
        self._announce_at = 0
        self._answers = (-1, 0)
        """A second, and how many questions were answered in it."""
        interval = settings.interval_ns
        self._search = Search(settings.subnets, settings.has_names, settings.has_hook, interval)

    # --- events -------------------------------------------------------------------------------------------------------

    def start(self, peers: Iterable[Peer], seeds: Iterable[Address], now: int) -> list[Effect]:
        """What is on disk, and the seeds that are addresses."""
        for peer in peers:
            self.peers[peer.address] = peer
            origin = Origin.REMEMBERED if peer.node else Origin.REGISTERED
            self.dialling.propose(peer.address, origin, now, now, peer.node)
        self.propose(seeds, Origin.CONFIGURED, now)
        self._announce_at = now
        self._search.restart(now)
        return self.tick(now)

    def remember_only(self, peers: Iterable[Peer]) -> None:
        """Discovery is switched off: what is on disk is kept and shown, and nobody is looked for."""
        self.peers.update((peer.address, peer) for peer in peers)

    def tick(self, now: int) -> list[Effect]:
        """At ``next_at``, or whenever there is reason to."""
        effects: list[Effect] = []
        is_lonely = not self.connected
        if now >= self._announce_at:
            effects.append(self._announce(now))
        if self._search.wants_names(now, self._lots):
            effects.append(ResolveNames())
        hosts = self._search.probes(now, self._lots, is_lonely)
        if hosts:
            effects.append(Ask(self._next_number(), tuple(hosts)))
        if self._search.wants_hook(now, self._lots, is_lonely):
            effects.append(RunHook())
        started = self.dialling.start(now, self.connected, self._is_enough)
        effects += [Dial(one.address, one.node) for one in started]
        return effects

    def next_at(self) -> int:
        """When the next tick is due."""
        times = [self._announce_at, self._search.next_at(not self.connected)]
        times.append(self.dialling.next_at(self.connected, self._is_enough))
        return min(at for at in times if at is not None)

    def propose(self, addresses: Iterable[Address], origin: Origin, now: int) -> None:
        """Addresses without a claim who is there: seeds, what names stand for, what the hook printed."""
        for address in addresses:
            self.dialling.propose(address, origin, now, now)

    def register(self, address: Address, now: int) -> list[Effect]:
        """A person wants this one dialled: now, and after every start."""
        known = self.peers.get(address, Peer(address))
        self.dialling.propose(address, Origin.REGISTERED, now, now)
        self.dialling.hasten(address, now)
        return self._remember(Peer(address, known.node, is_registered=True))

    def dial_now(self, address: Address, now: int) -> Dial:
        """Of one that is registered: a person waits to hear who is there, whoever was met there before."""
        self.dialling.begin(address, now)
        return Dial(address, b"")

    def unregister(self, address: Address) -> list[Effect]:
        self.dialling.drop(address)
        return [Remember()] if self.peers.pop(address, None) else []

    def is_worth_opening(self, sender: bytes, number: int, source: str, now: int) -> bool:
        """What to ask of a packet before it is opened; it takes one opening from the ration."""
        return self._is_news(sender, number, now) and self._hearing.may_open(source, now)

    def on_beacon(self, sender: bytes, number: int, beacon: Beacon, source: Address, now: int) -> list[Effect]:
        """It was opened, so a member sealed it, once. ``source`` is only where the network says that it came from."""
        if not self._is_news(sender, number, now):
            return []
        if sender == self.own:
            return self._on_own_name(number, source)
        self._hearing.note(sender, number, now)
        addresses = usable(beacon, source)
        self._heard(sender, addresses, now)
        effects: list[Effect] = []
        if sender in self.connected:
            effects += self._remember_announced(sender)
        if beacon.is_question and self._may_answer(now):
            effects.append(Answer(self._next_number(), source))
        return effects

    def on_dialled(self, address: Address, node: bytes | None, now: int) -> list[Effect]:
        """A dial ended; ``node`` was met there, or None. A connection is told by ``on_connected``."""
        self.dialling.on_dialled(address, node, now, self._lots())
        if node is None or node == self.own:
            return []
        known = self.peers.get(address, Peer(address))
        return self._remember(Peer(address, node, known.is_registered))

    def on_connected(self, node: bytes) -> list[Effect]:
        """There is a connection to it, whoever dialled; said again, nothing changes."""
        self.connected.add(node)
        return self._remember_announced(node)

    def on_closed(self, node: bytes, now: int) -> None:
        """There is none to it any more."""
        if node not in self.connected:
            return
        self.connected.discard(node)
        self.dialling.on_closed(node, now, self._lots())
        if not self.connected:
            self._search.restart(now)

    def on_change(self, now: int) -> list[Effect]:
        """We slept: what failed before says nothing about now."""
        self._announce_at = now
        self.on_other_interfaces(now)
        return self.tick(now)

    def on_other_interfaces(self, now: int) -> None:
        """What failed over the old ones says nothing about the new. A beacon is about to be sent over them."""
        self.dialling.hasten_all(now)
        if not self.connected:
            self._search.restart(now)

    def forget(self, node: bytes) -> list[Effect]:
        """It was removed from the cluster."""
        self.dialling.forget(node)
        self._announced.pop(node, None)
        gone = [peer.address for peer in self.peers.values() if peer.node == node]
        for address in gone:
            del self.peers[address]
        return [Remember()] if gone else []

    def addresses_of(self, node: bytes) -> list[Address]:
        """Where it says that it is reached, the best first, then where it was met."""
        met = [peer.address for peer in reversed(self.peers.values()) if peer.node == node]
        return list(dict.fromkeys([*self._announced.get(node, ()), *met]))

    # --- below --------------------------------------------------------------------------------------------------------

    @property
    def _is_enough(self) -> bool:
        return len(self.connected) >= self.settings.connections_wanted

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _announce(self, now: int) -> Effect:
        """Each interval is drawn from 90 to 110 % of it, so that hosts do not come to speak all at once."""
        self._announce_at = now + int(self.settings.interval_ns * (0.9 + 0.2 * self._lots()))
        return Announce(self._next_number())

    def _heard(self, sender: bytes, addresses: tuple[Address, ...], now: int) -> None:
        """It lives and is reached at these. Those of its own back-offs that are longer than an interval are cut short:
        a host that speaks now may well answer."""
        interval = self.settings.interval_ns
        for address in set(self._announced.pop(sender, ())) - set(addresses):
            known = self.dialling.candidates.get(address)
            if known is not None and known.origin == Origin.HEARD and known.node == sender:
                self.dialling.drop(address)
        if not addresses:
            return
        self._announced[sender] = addresses
        if len(self._announced) > BEACON_SENDERS_MAX:
            del self._announced[next(iter(self._announced))]
        patience = 0 if self.own < sender else min(SECOND_NS, interval // 2)
        for place, address in enumerate(addresses):
            due = now + patience + place * STAGGER_NS
            if self.dialling.propose(address, Origin.HEARD, now, due, sender):
                dialled_at = self.dialling.candidates[address].dialled_at
                self.dialling.hasten(address, max(due, dialled_at + interval))

    def _is_news(self, sender: bytes, number: int, now: int) -> bool:
        if sender != self.own:
            return self._hearing.is_news(sender, number, now)
        return max(self._number, self._copy) < number <= NUMBER_MAX

    def _on_own_name(self, number: int, source: Address) -> list[Effect]:
        """Those who heard it do not hear us below its number, so we count on from there. What is too high for a copy is
        not believed by those who know us, and by the others not for long."""
        self._copy = number
        if number <= self._number_max:
            self._number = number
        return [CopySeen(source.host)]

    def _may_answer(self, now: int) -> bool:
        second, count = self._answers
        if second != now // SECOND_NS:
            second, count = now // SECOND_NS, 0
        self._answers = (second, count + 1)
        return count < ANSWERS_PER_SECOND_MAX

    def _remember(self, peer: Peer) -> list[Effect]:
        is_same = self.peers.pop(peer.address, None) == peer
        self.peers[peer.address] = peer
        if len(self.peers) > REMEMBERED_MAX:
            oldest = next((one.address for one in self.peers.values() if not one.is_registered), None)
            if oldest is not None:
                del self.peers[oldest]
        return [] if is_same else [Remember()]

    def _remember_announced(self, node: bytes) -> list[Effect]:
        """A member that is connected said where it is reached. It may be dialled there after our next start although it
        is it that dialled us this time."""
        effects: list[Effect] = []
        for address in self._announced.get(node, ()):
            known = self.peers.get(address, Peer(address))
            effects += self._remember(Peer(address, node, known.is_registered))
        return effects[:1]


def usable(beacon: Beacon, source: Address) -> tuple[Address, ...]:
    """The addresses of a beacon that a host can have, and that mean the same here as there: loopback only if the beacon
    came over it."""
    is_local = ipaddress.ip_address(source.host).is_loopback
    found: dict[Address, None] = {}
    for packed in beacon.addresses:
        if len(packed) not in (4, 16):
            continue
        host = ipaddress.ip_address(packed)
        if _is_a_hosts(host) and host.is_loopback == is_local:
            found[Address(str(host), beacon.port)] = None
    return tuple(found)


def _is_a_hosts(host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if host.is_multicast or host.is_unspecified:
        return False
    if isinstance(host, ipaddress.IPv4Address):
        return not host.is_reserved  # 255.255.255.255 and the rest of the old class E
    return not host.is_link_local and host.ipv4_mapped is None  # the one needs a zone, the other is IPv4's to say
