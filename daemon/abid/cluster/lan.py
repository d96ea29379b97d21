"""The UDP sockets of discovery: beacons to everybody on our networks, questions and answers to one host.

Each address has a socket that sends, and hears what is sent to this host; networks with a broadcast address have one
that hears that; one hears IPv4's multicast group on every interface, and one on each hears IPv6's. None is bound
to the wildcard: who restricts abi to one interface is heard on no other. Several daemons of one host share the port;
broadcasts and multicasts reach all of them.

A flood must not become the daemon's work. Beacons are in no hurry, so after a few looks at the sockets we look away for
``LOOK_AWAY_S``; what arrives meanwhile waits in the kernel, and what has no room there is dropped by it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from abid.cluster.beacon import BYTES_MAX
from abid.cluster.interfaces import Interface

log = logging.getLogger(__name__)

GROUP: Final = "239.255.97.98"
"""IPv4's local scope (RFC 2365): no router passes it on."""
GROUP_V6: Final = "ff12::6162:69"
"""Transient, link-local scope (RFC 4291, 2.7)."""
LOOK_AWAY_S: Final = 0.02
LOOKS_MAX: Final = 4
"""In that time: one beacon comes to several sockets, one after the other, and is no flood."""
PACKETS_PER_LOOK_MAX: Final = 64
"""In all sockets together: 12,800 packets a second at most, whatever arrives. That a packet is not worth opening takes
some 4 µs to tell, so a flood costs at most a twentieth of a core."""
RECEIVE_BYTES: Final = 1 << 18
"""Asked of the kernel for each socket: room for what 10,000 packets a second bring while we look away."""

Source = Any
"""What the kernel says a packet came from: host and port first."""


class Lan:
    """Open sockets. ``on_packet`` gets each packet and where it came from."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, on_packet: Callable[[bytes, Source], None]) -> None:
        self._loop = loop
        self._port = port
        self._on_packet = on_packet
        self._senders: list[tuple[Interface, socket.socket]] = []
        self._ears: list[socket.socket] = []
        self._again: asyncio.TimerHandle | None = None
        self._looks = 0
        """Since then."""
        self._looking_since = 0.0

    def open(self, interfaces: Sequence[Interface]) -> None:
        """Use these from now on, and no others. One that cannot be used is said and left out."""
        self.close()
        for interface in interfaces:
            try:
                sender = self._sender(interface)
            except OSError as error:
                log.warning("no beacons on %s (%s): %s", interface.name, interface.address, error)
                continue
            self._senders.append((interface, sender))
            self._ears.append(sender)
            if interface.broadcast:
                self._hear((interface.broadcast, self._port), [])
        used = [interface for interface, _ in self._senders]
        in_v4 = {interface.number: interface for interface in used if not interface.is_v6}
        if in_v4:
            self._hear((GROUP, self._port), list(in_v4.values()))
        for number, interface in {interface.number: interface for interface in used if interface.is_v6}.items():
            self._hear((GROUP_V6, self._port, 0, number), [interface])  # a group of the link is one of each link
        self._listen()

    def close(self) -> None:
        """No socket is left."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        for sock in self._ears:
            self._loop.remove_reader(sock)
            sock.close()
        self._ears, self._senders = [], []

    def broadcast(self, packet: bytes) -> None:
        """To everybody on our networks, by broadcast and by multicast."""
        for interface, sender in self._senders:
            if interface.is_v6:
                _send(sender, packet, (GROUP_V6, self._port, 0, interface.number))
                continue
            _send(sender, packet, (GROUP, self._port))
            if interface.broadcast:
                _send(sender, packet, (interface.broadcast, self._port))

    def send(self, packet: bytes, host: str, port: int = 0) -> None:
        """To one host; ``port`` 0: where discovery listens."""
        there = ipaddress.ip_address(host)
        alike = [(one, sender) for one, sender in self._senders if one.is_v6 == (there.version == 6)]
        near = [
            sender for one, sender in alike if there in ipaddress.ip_network((one.address, one.prefix), strict=False)
        ]
        for sender in near[:1] or [sender for _, sender in alike[:1]]:
            _send(sender, packet, (host, port or self._port))

    # --- sockets ------------------------------------------------------------------------------------------------------

    def _sender(self, interface: Interface) -> socket.socket:
        sock = self._socket(interface.is_v6)
        try:
            if interface.is_v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.number)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _join(interface))
            sock.bind((interface.address, self._port))
        except OSError:
            sock.close()
            raise
        return sock

    def _hear(self, address: tuple[Any, ...], joined: Sequence[Interface]) -> None:
        """Hear what is sent to a broadcast address, or to a group on these interfaces."""
        host = address[0]
        sock = self._socket(":" in host)
        try:
            if host == GROUP:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            sock.bind(address)
        except OSError as error:
            log.warning("beacons to %s are not heard: %s", host, error)
            sock.close()
            return
        self._ears.append(sock)
        for interface in joined:
            try:
                if interface.is_v6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, _join_v6(interface))
                else:
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _join(interface))
            except OSError as error:
                log.info("no multicast on %s: %s", interface.name, error)

    @staticmethod
    def _socket(is_v6: bool) -> socket.socket:
        family = socket.AF_INET6 if is_v6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return sock

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._again = None
        for sock in self._ears:
            self._loop.add_reader(sock, self._look)

    def _look(self) -> None:
        """One socket at least has something. Each may have its share of this look."""
        now = self._loop.time()
        if now - self._looking_since >= LOOK_AWAY_S:
            self._looking_since, self._looks = now, 0
        self._looks += 1
        if self._looks >= LOOKS_MAX:
            for sock in self._ears:
                self._loop.remove_reader(sock)
            self._again = self._loop.call_later(LOOK_AWAY_S, self._listen)
        ears = list(self._ears)
        for sock in ears:
            self._read(sock, PACKETS_PER_LOOK_MAX // len(ears))

    def _read(self, sock: socket.socket, count: int) -> None:
        for _ in range(count):
            try:
                packet, source = sock.recvfrom(BYTES_MAX + 1)  # one more, so that what is too long shows
            except OSError:  # nothing more; or the interface went, which is found at the next announcement
                return
            self._on_packet(packet, source)


_IP_MULTICAST_ALL: Final = 49
"""Linux: without it a socket also hears groups that others of this host have joined elsewhere."""


def _join(interface: Interface) -> bytes:
    """``struct ip_mreqn``: group, our address, and the interface, which decides."""
    here = socket.inet_aton(interface.address)
    return socket.inet_aton(GROUP) + here + interface.number.to_bytes(4, sys.byteorder)


def _join_v6(interface: Interface) -> bytes:
    """``struct ipv6_mreq``."""
    return socket.inet_pton(socket.AF_INET6, GROUP_V6) + interface.number.to_bytes(4, sys.byteorder)


def _send(sock: socket.socket, packet: bytes, to: Source) -> None:
    try:
        sock.sendto(packet, to)
    except OSError as error:  # no route, no carrier, a firewall, no room: the next one is an interval away
        log.debug("no beacon to %s: %s", to[0], error)
