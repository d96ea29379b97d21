"""Where this host listens for its peers, and what they are told to dial: its addresses, as they come and go.

A host may be up before its switch or its DHCP server, be given another address later, or lose one. So the port is open
on the addresses that are up, whichever these are, and the cluster is told of those that are new:

- Opened is what is up. Closed is what this host has no more; an address whose cable is out is kept, since it is likely
  to come back, and costs nothing.
- The cluster is told when an address is up that it does not know, or when it knows one that is gone; not of a cable
  that is pulled and put back, nor of a container engine whose bridge is up only while it has guests.
- Loopback is open where there is nothing else, and is told to nobody unless `network.bind` asks for it: to each of the
  others it is another host, namely itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from abi import addresses
from abi.config import Config
from abi.errors import AbiError, ConfigError, UsageError
from abid.cluster import interfaces
from abid.cluster.door import PORTS_TRIED_MAX, Door, opened, port_of
from abid.core.cluster.facts import ADDRESSES_MAX

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Between two looks, or an interval of discovery if that is shorter: one costs a fraction of a millisecond."""


class Listening:
    """One member's, from ``start`` to ``close``. ``on_moved`` is told that there are other addresses than before, and
    whether one is gone, over which nothing comes any more; ``on_told`` is given what others are to dial, if that
    changed. ``told`` is that, as it is now."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, door: Door, port: int, up: Sequence[str],
        on_moved: Callable[[bool], None], on_told: Callable[[tuple[str, ...]], None],
        find: Callable[[str], list[interfaces.Interface]] = interfaces.found,
        owned: Callable[[], frozenset[str]] = interfaces.owned,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._config = config
        self._door = door
        self._port = port
        self._on_moved = on_moved
        self._on_told = on_told
        self._find = find
        self._owned = owned
        self._bind = config.text("network.bind")
        self._every_s = min(LOOK_S, config.integer("network.broadcast_interval_ms") / 1000)
        self._up = tuple(up)
        self._failed: dict[str, str] = {}
        """By address: why the port is not open there."""
        self._absent = ""
        """Why the address in `network.bind` is not used."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self.told = self.reached_at

    def start(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._on_timer)

    def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    @property
    def places(self) -> list[str]:
        """Where the port is open."""
        return [joined(host, self._port) for host in self._door.hosts]

    @property
    def reached_at(self) -> tuple[str, ...]:
        """What others could dial at this moment, the best first."""
        return to_dial(self._config, [host for host in self._up if host in self._door.hosts], self._port)

    def checked(self) -> tuple[str, ...]:
        """The same, to be handed to others. Raises AbiError where there is nothing that they could dial."""
        if not self.reached_at:
            raise AbiError(
                f"no other host can reach this one: it {self.trouble or 'has no address'}",
                code="unavailable",
                hint="bring its network up, or set network.address; of daemons that share one host, each with "
                'network.bind = "127.0.0.1"',
            )
        return self.reached_at

    @property
    def trouble(self) -> str:
        """Why peers cannot come as they should, in words; "" if they can."""
        if self._absent:
            return f"is reached nowhere: {self._absent}"
        said = [f"does not listen on {host}: {why}" for host, why in self._failed.items()]
        if not self._bind and all(map(is_loopback, self._up)):
            said.insert(0, only_loopback(self._up))
        return "; ".join(said)

    def notes(self) -> list[dict[str, Any]]:
        """For `abi network status`."""
        hint = "it listens on others as soon as they are up"
        return [{"code": "listening", "message": f"this host {self.trouble}", "hint": hint}] if self.trouble else []

    def look(self) -> None:
        """Now; somebody saw that the addresses are others."""
        if self._task is None and not self._is_closed:
            self._task = self._loop.create_task(self._follow(), name="abid listening")
            self._task.add_done_callback(self._on_followed)

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._on_timer)
        self.look()

    def _on_followed(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the addresses of this host cannot be followed: %s", error, exc_info=error)

    async def _follow(self) -> None:
        before = self._up
        try:
            self._up, self._absent = tuple(one.address for one in self._find(self._bind)), ""
        except ConfigError as error:
            self._up, self._absent = (), error.message
        except OSError as error:
            log.warning("the interfaces of this host cannot be read: %s", error)
            return
        owned = self._owned()
        is_one_gone = not owned.issuperset(self._door.hosts)
        kept = [host for host in self._door.hosts if host in owned and (self._bind or not is_loopback(host))]
        failed = await self._door.follow(list(dict.fromkeys([*self._up, *kept])), self._port)
        for host, why in failed.items():
            if self._failed.get(host) != why:
                log.warning("port %d cannot be opened on %s: %s", self._port, host, why)
        self._failed = failed
        if self._up != before or is_one_gone:
            log.info("this host listens on %s", ", ".join(self.places) or "no address")
            self._on_moved(is_one_gone)
        self._tell(owned)

    def _tell(self, owned: frozenset[str]) -> None:
        """Nothing, while there is nothing that others could dial: they know at least where this host was."""
        found = self.reached_at
        there = {joined(host, self._port) for host in owned}
        if found and found != self.told and not set(found) <= set(self.told) <= there:
            self.told = found
            self._on_told(found)


def up(config: Config) -> list[str]:
    """The addresses on which this host would listen now. Raises ConfigError when the one in `network.bind` is not
    there."""
    return [interface.address for interface in interfaces.found(config.text("network.bind"))]


def to_dial(config: Config, hosts: Sequence[str], port: int) -> tuple[str, ...]:
    """What others are told, of a host that listens on these."""
    text = config.text("network.address")
    if text:
        host, own = addresses.split(text)
        return (joined(host, own or port),)
    is_asked_for = bool(config.text("network.bind"))
    return tuple(joined(host, port) for host in hosts if is_asked_for or not is_loopback(host))[:ADDRESSES_MAX]


def places_at(config: Config, port: int) -> tuple[str, ...]:
    """What others would be told now. Raises ConfigError as ``up`` does."""
    return to_dial(config, up(config), port)


def only_loopback(hosts: Sequence[str]) -> str:
    return f"listens on {' and '.join(hosts)} only: no other address is up" if hosts else "no address is up"


def may_move(config: Config) -> bool:
    """Whether another port will do: nobody has set this one."""
    return config.settings["network.port"].origin == "default"


class Wanted(NamedTuple):
    """A port; whether the next free one will do instead, and whether any will."""

    port: int
    may_move: bool
    or_any: bool


def wanted(config: Config, before: int) -> Wanted:
    """For a member that listened on a port ``before``. What a person has set counts, also long after the founding; 0 is
    any, and best the one that the others know."""
    port = config.integer("network.port")
    if may_move(config):
        return Wanted(before, may_move=True, or_any=False)
    return Wanted(port or before, may_move=False, or_any=port == 0)


async def free_port(loop: asyncio.AbstractEventLoop, config: Config) -> int:
    """The port that this host will take, if nobody else takes it in the meantime. Raises ConfigError and UsageError."""
    port, hosts, why = config.integer("network.port"), up(config), ""
    last = port + PORTS_TRIED_MAX if may_move(config) and port else port
    for candidate in range(port, last + 1):
        try:
            servers = await opened(loop, asyncio.Protocol, hosts, candidate)
        except OSError as error:
            why = error.strerror or str(error)
            continue
        found = port_of(servers)
        for server in servers.values():
            server.close()
            await server.wait_closed()
        return found
    raise UsageError(f"port {port} cannot be opened: {why}", hint="set network.port to a free one")


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
