"""Which of this host's addresses its peers may reach: in what order they are announced, and where we listen.

All that are up count, and each is tried; what is rarely meant comes last. Real networks stand before what a container
engine or hypervisor made for its guests (every host has a docker0, often with the same address), those before tunnels
(a VPN may lead to the same host over another continent), and IPv4 before IPv6 on each. Loopback is used only where
there is nothing else, or where it is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from abi.errors import ConfigError

INTERFACES_MAX: Final = 16
"""Addresses used. A host with hundreds of virtual interfaces does not open hundreds of sockets for them."""

_FOR_GUESTS: Final = (
    *("br-", "cali", "cilium", "cni", "docker", "flannel", "kube", "lxc", "lxd", "nerdctl", "podman", "vboxnet"),
    *("veth", "virbr", "vmnet", "vnet", "weave"),
)
_TUNNELS: Final = (
    *("gre", "ip6tnl", "ipsec", "nebula", "ppp", "sit", "tailscale", "tap", "tun", "utun", "vti", "wg", "zt"),
)
_REAL, _SELF_ASSIGNED, _GUESTS, _TUNNEL, _LOOPBACK = range(5)


class Interface(NamedTuple):
    """One address of one interface."""

    name: str
    number: int
    """The kernel's index of it."""
    address: str
    prefix: int
    broadcast: str = ""
    """Where everybody on its network hears; empty for IPv6 and for links between two."""

    @property
    def is_v6(self) -> bool:
        return ":" in self.address

    @property
    def packed(self) -> bytes:
        return ipaddress.ip_address(self.address).packed


class _Address(Protocol):
    """psutil's ``snicaddr``."""

    @property
    def family(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def netmask(self) -> str | None: ...


_RAW: Final = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_LINKS_AND_ADDRESSES: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (linux/rtnetlink.h)."""
_NEWS_BYTES: Final = 1
"""Of each message, which nobody reads."""


class _Stats(Protocol):
    """psutil's ``snicstats``; ``isup`` also means that there is a carrier."""

    @property
    def isup(self) -> bool: ...


def found(only: str = "") -> list[Interface]:
    """Those of this host now, the best first. ``only``: one interface's name or one address. Raises ConfigError when it
    is not there."""
    import psutil

    return chosen(psutil.net_if_addrs(), psutil.net_if_stats(), only, socket.if_nametoindex)


class Following:
    """``found``, of a host whose interfaces seldom change: the kernel is asked again when it has said that something is
    another (rtnetlink(7)), which costs a hundredth of asking."""

    def __init__(self) -> None:
        self._found: dict[str, list[Interface]] = {}
        self._news: socket.socket | None = None
        with contextlib.suppress(OSError):  # no such socket here: then it is asked each time
            self._news = socket.socket(socket.AF_NETLINK, _RAW, socket.NETLINK_ROUTE)
            self._news.bind((0, _LINKS_AND_ADDRESSES))

    def close(self) -> None:
        if self._news is not None:
            self._news.close()
            self._news = None

    def found(self, only: str = "") -> list[Interface]:
        """See ``found``."""
        if self._is_news():
            self._found.clear()
        if only not in self._found:
            self._found[only] = found(only)
        return self._found[only]

    def _is_news(self) -> bool:
        if self._news is None:
            return True
        is_news = False
        while True:
            try:
                self._news.recv(_NEWS_BYTES)
            except BlockingIOError:
                return is_news
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # there was more news than room for it
                    self.close()
                    return True
            is_news = True


def owned() -> frozenset[str]:
    """All addresses of this host, also of interfaces that are down."""
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    return frozenset(one.address for its in psutil.net_if_addrs().values() for one in its if one.family in families)


def chosen(
    addresses: Mapping[str, Sequence[_Address]],
    stats: Mapping[str, _Stats],
    only: str = "",
    number_of: Callable[[str], int] = socket.if_nametoindex,
) -> list[Interface]:
    """``found``, from what psutil says."""
    ranked = [
        (rank, name, _interface(name, one, number_of))
        for name, its in addresses.items()
        if name in stats and stats[name].isup
        for one in its
        if one.family in (socket.AF_INET, socket.AF_INET6) and (rank := _rank(name, one.address)) is not None
    ]
    ranked.sort(key=lambda one: (one[0], one[1]))
    if only:
        named = [interface for _, name, interface in ranked if only in (name, interface.address)]
        if not named:
            raise _absent(only, [interface for *_, interface in ranked])
        return named
    outside = [interface for rank, _, interface in ranked if rank // 2 != _LOOPBACK]
    return (outside or [interface for *_, interface in ranked])[:INTERFACES_MAX]


def _rank(name: str, address: str) -> int | None:
    """None: nobody else can use it as it stands (an IPv6 address of the link needs a zone)."""
    host = ipaddress.ip_address(address.partition("%")[0])
    if host.is_loopback:
        kind = _LOOPBACK
    elif host.is_link_local:
        if host.version == 6:
            return None
        kind = _SELF_ASSIGNED
    elif name.startswith(_TUNNELS):
        kind = _TUNNEL
    elif name.startswith(_FOR_GUESTS):
        kind = _GUESTS
    else:
        kind = _REAL
    return kind * 2 + (host.version == 6)


def _interface(name: str, one: _Address, number_of: Callable[[str], int]) -> Interface:
    bits = 128 if ":" in one.address else 32
    try:
        mask = int(ipaddress.ip_address(one.netmask or ""))
        prefix = mask.bit_count()
    except ValueError:
        prefix = bits
    network = ipaddress.ip_network(f"{one.address}/{prefix}", strict=False)
    has_broadcast = network.version == 4 and network.num_addresses > 2
    return Interface(
        name, number_of(name), one.address, prefix, str(network.broadcast_address) if has_broadcast else ""
    )


def _absent(only: str, there: Sequence[Interface]) -> ConfigError:
    names = ", ".join(f"{one.address} ({one.name})" for one in there) or "none that is up"
    return ConfigError(
        f"{only!r} is neither an interface nor an address of this host that is up", hint=f"there are: {names}"
    )
