"""Hosts with the rules of discovery on one network, in one process, with a virtual clock and a seed."""

from __future__ import annotations

import heapq
import ipaddress
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from abid.core.dialling import Address
from abid.core.discovery import (
    Announce,
    Answer,
    Ask,
    Beacon,
    Dial,
    Discovery,
    Effect,
    Peer,
    Remember,
    ResolveNames,
    RunHook,
    Settings,
)  # fmt: skip

MS = 1_000_000
SECOND = 1000 * MS
LATENCY = MS
"""One way, of a packet and of a dial's answer."""
DIAL_TIMEOUT = 10 * SECOND
PORT = 8081
UDP_PORT = 8081


def packed(*hosts: str) -> tuple[bytes, ...]:
    return tuple(ipaddress.ip_address(host).packed for host in hosts)


@dataclass
class Host:
    """``addresses``: announced, the best first; only those in ``answering`` are where it can be dialled."""

    rules: Discovery
    addresses: list[str]
    answering: set[str]
    dials: list[tuple[int, Address]] = field(default_factory=list)
    others: list[Effect] = field(default_factory=list)
    is_up: bool = True


class World:
    """``hears(sender, receiver)``: whether packets reach it, by place of the host. ``has_broadcast``: whether those to
    everybody do."""

    def __init__(
        self,
        seed: int = 1,
        hears: Callable[[int, int], bool] = lambda _sender, _receiver: True,
        *,
        has_broadcast: bool = True,
    ) -> None:
        self.has_broadcast = has_broadcast
        self.now = 1000 * SECOND
        self.hosts: list[Host] = []
        self.hears = hears
        self.packets = 0
        self._lots = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0

    def host(
        self, settings: Settings | None = None, *, peers: Iterable[Peer] = (), seeds: Iterable[Address] = (),
        addresses: list[str] | None = None, answering: set[str] | None = None, start_after: int = 0, boot: int = 1,
    ) -> Host:  # fmt: skip
        place = len(self.hosts)
        rules = Discovery(bytes([0, 0, 0, place + 1]), boot, settings or Settings(), self._lots.random)
        addresses = addresses or [f"10.0.0.{place + 1}"]
        host = Host(rules, addresses, answering if answering is not None else set(addresses))
        self.hosts.append(host)
        peers, seeds = list(peers), list(seeds)
        self.after(start_after, lambda: self._do(host, rules.start(peers, seeds, self.now)))
        return host

    def after(self, delay: int, then: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self.now + delay, self._serial, then))

    def run(self, until: Callable[[], bool] = lambda: False, within: int = 60 * SECOND) -> int:
        """Until it is so, or for so long; how long it took."""
        start = self.now
        while not until() and self._events and self._events[0][0] <= start + within:
            self.now, _, then = heapq.heappop(self._events)
            then()
        if not until():
            self.now = start + within
        return self.now - start

    def are_connected(self, one: Host, other: Host) -> bool:
        return other.rules.own in one.rules.connected and one.rules.own in other.rules.connected

    def _tick(self, host: Host) -> None:
        if host.is_up and self.now >= host.rules.next_at():
            self._do(host, host.rules.tick(self.now))

    def _do(self, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Announce(number):
                    self._send(host, number, self.hosts if self.has_broadcast else [], is_question=False)
                case Ask(number, hosts):
                    self._send(
                        host, number, [one for one in self.hosts if set(hosts) & one.answering], is_question=True
                    )
                case Answer(number, to):
                    self._send(host, number, [one for one in self.hosts if to.host in one.answering], is_question=False)
                case Dial(address):
                    host.dials.append((self.now, address))
                    self._dial(host, address)
                case Remember() | ResolveNames() | RunHook() | _:
                    host.others.append(effect)
        self.after(max(0, host.rules.next_at() - self.now), lambda: self._tick(host))

    def _send(self, sender: Host, number: int, receivers: Iterable[Host], *, is_question: bool) -> None:
        self.packets += 1
        beacon = Beacon(PORT, packed(*sender.addresses), is_question)
        source = Address(min(sender.answering or sender.addresses), UDP_PORT)
        for receiver in receivers:
            if self.hears(self.hosts.index(sender), self.hosts.index(receiver)):
                self.after(LATENCY, lambda receiver=receiver: self._arrive(receiver, sender, number, beacon, source))  # type: ignore[misc]

    def _arrive(self, receiver: Host, sender: Host, number: int, beacon: Beacon, source: Address) -> None:
        rules = receiver.rules
        is_started = receiver.rules.next_at() > 0
        if is_started and receiver.is_up and rules.is_worth_opening(sender.rules.own, number, source.host, self.now):
            self._do(receiver, rules.on_beacon(sender.rules.own, number, beacon, source, self.now))

    def _dial(self, host: Host, address: Address) -> None:
        there = next((one for one in self.hosts if one.is_up and address.host in one.answering), None)
        if there is None:
            self.after(DIAL_TIMEOUT, lambda: self._do(host, host.rules.on_dialled(address, None, self.now)))
            return

        def met() -> None:
            self._do(host, host.rules.on_dialled(address, there.rules.own, self.now))
            if there is not host:
                self._do(host, host.rules.on_connected(there.rules.own))
                self._do(there, there.rules.on_connected(host.rules.own))

        self.after(2 * LATENCY, met)
