"""Discovery at work: the rules of ``abid.core.discovery`` with sockets, a clock, names, a hook and a file around them.

The owner is asked for one thing: ``dial(address, node)``, which connects, proves who is there, and returns its id. It
tells us of every connection, whoever made it (``on_connected``, ``on_closed``).

Switched off, there is no socket, no timer and not one packet, but for the dial of an address that a person registers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, assert_never

from abi.errors import AbiError, ConfigError
from abid.cluster import interfaces, lookup, remembered
from abid.cluster.beacon import Seals
from abid.cluster.interfaces import Interface
from abid.cluster.lan import Lan, Source
from abid.core.dialling import Address, Origin
from abid.core.discovery import (
    BEACON_ADDRESSES_MAX,
    Announce,
    Answer,
    Ask,
    Beacon,
    CopySeen,
    Dial,
    Discovery,
    Effect,
    Peer,
    Remember,
    ResolveNames,
    RunHook,
    Settings,
)  # fmt: skip
from abid.core.searching import parse_subnets

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8081
TICK_SPACING_S: Final = 0.02
"""However much there is to do, the rules are asked 50 times a second at most."""
NS: Final = 1_000_000_000

DialOut = Callable[[Address, bytes], Awaitable[bytes]]
"""Connect to an address, where a node is expected (or empty), and return who is there. Raises OSError or AbiError."""


@dataclass(frozen=True)
class Options:
    """What the configuration says, `network.…`."""

    enabled: bool = True
    port: int = DEFAULT_PORT
    """UDP, on every host the same, also where peers connect to another one; 0 (there: any free one) is the default."""
    interval_ms: int = 5000
    bind: str = ""
    """The only interface or address to use; empty: all."""
    address: str = ""
    """What peers are told to dial, as `HOST[:PORT]`; empty: the addresses of the interfaces."""
    seeds: Sequence[str] = ()
    subnets: Sequence[str] = ()
    exec_hook: str = ""


class Discoverer:
    """One daemon's. ``node`` is its id, ``boot`` is counted up at each of its starts (``abid.state``), ``listening`` is
    where it listens for peers (TCP). Raises UsageError and ConfigError for options that make no sense."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: Options, *, node: bytes, boot: int, keys: Sequence[bytes],
        listening: int, folder: Path, dial: DialOut, find: Callable[[str], list[Interface]] = interfaces.found,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._options = options
        self._node = node
        self._listening = listening
        self._folder = folder
        self._dial_out = dial
        self._find = find
        self._now = now
        self._seals = Seals(keys) if options.enabled else None
        self._port = options.port or DEFAULT_PORT
        self._lan = Lan(loop, self._port, self._on_packet)
        self._is_resolving = False
        self._interfaces: list[Interface] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[object]] = set()
        self._saving = self._must_save = False
        self._is_started = False
        self.on_moved: Callable[[], None] = lambda: None
        """Told when the addresses of this host are others."""
        self.on_copy: Callable[[str], None] = lambda host: None
        """Told from where a beacon came in the name of this host that it did not send."""
        seeds = [lookup.parse(text, self._port) for text in options.seeds]
        self._names = [place for place in seeds if not lookup.is_address(place.host)]
        self._seeds = [lookup.address_of(place) for place in seeds if lookup.is_address(place.host)]
        self._told = lookup.parse(options.address, listening) if options.address else None
        has_told_name = self._told is not None and not lookup.is_address(self._told.host)
        self._told_addresses = [Address(*self._told)] if self._told is not None and not has_told_name else []
        try:
            subnets = parse_subnets(options.subnets)
        except ValueError as problem:
            raise ConfigError(f"network.subnets: {problem}") from None
        settings = Settings(
            interval_ns=options.interval_ms * 1_000_000,
            subnets=subnets,
            has_names=bool(self._names) or has_told_name,
            has_hook=bool(options.exec_hook),
        )
        # Each host draws lots of its own: hosts that drew alike would do everything in the same moments.
        self.rules = Discovery(node, boot, settings, random.SystemRandom().random)

    # --- for the owner ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load what is remembered, open the sockets, look for the others. Switched off: load only. Raises ConfigError
        when what the configuration binds to is not there."""
        peers = remembered.load(self._folder)
        if not self._options.enabled:
            self.rules.remember_only(peers)
            self._say_what_rests(peers)
            return
        self._is_started = True
        self._interfaces = self._find(self._options.bind)
        self._lan.open(self._interfaces)
        self._perform(self.rules.start(peers, self._seeds, self._now()))

    def _say_what_rests(self, peers: Iterable[Peer]) -> None:
        options = self._options
        resting = {
            "network.seeds": options.seeds,
            "network.subnets": options.subnets,
            "network.exec_hook": options.exec_hook,
            "what was registered": [peer for peer in peers if peer.is_registered],
        }
        named = [name for name, is_there in resting.items() if is_there]
        if named:
            log.warning("nobody is looked for by %s: network.discovery_enabled is false", ", ".join(named))

    async def stop(self) -> None:
        """No socket, timer or dial of ours is left; what was to be remembered is on disk."""
        self._is_started = False
        self._lan.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._running:
            for task in self._running:
                if task.get_name() != _SAVING:
                    task.cancel()
            await asyncio.wait(self._running)

    @property
    def is_enabled(self) -> bool:
        return self._options.enabled

    @property
    def peers(self) -> list[Peer]:
        """What is remembered of addresses, whoever was met last at the end."""
        return list(self.rules.peers.values())

    async def register(self, found: Sequence[Address], dials_max: int) -> list[bytes | Exception]:
        """A person wants these dialled, now and after every start. What came of the first ``dials_max`` of them: who
        answers there, or why nobody does."""
        effects = [effect for address in found for effect in self.rules.register(address, self._now())]
        dials = [self._dial(self.rules.dial_now(address, self._now())) for address in found[:dials_max]]
        self._perform(effects)
        return list(await asyncio.gather(*dials))

    async def saved(self) -> None:
        """Until what is to be remembered is on disk, or it is known that it cannot be."""
        while self._saving:
            await asyncio.wait([task for task in self._running if task.get_name() == _SAVING])

    def unregister(self, address: Address) -> None:
        self._perform(self.rules.unregister(address))

    def forget(self, node: bytes) -> None:
        """It was removed from the cluster."""
        self._perform(self.rules.forget(node))

    def on_connected(self, node: bytes) -> None:
        self._perform(self.rules.on_connected(node))

    def on_closed(self, node: bytes) -> None:
        self.rules.on_closed(node, self._now())
        self._schedule()

    def on_woken(self) -> None:
        """This host slept: whatever failed before says nothing about now."""
        if self._is_started:
            self._perform(self.rules.on_change(self._now()))

    # --- the world's events -------------------------------------------------------------------------------------------

    def _on_packet(self, packet: bytes, source: Source) -> None:
        """The cheapest questions first: most of what may arrive here ends at one of them."""
        seals = self._seals
        if seals is None or (claim := seals.claim(packet)) is None:
            return
        now = self._now()
        if not self.rules.is_worth_opening(claim.sender, claim.number, source[0], now):
            return
        beacon = seals.open(packet)
        if beacon is not None:
            came_from = Address(source[0].partition("%")[0], source[1])
            self._perform(self.rules.on_beacon(claim.sender, claim.number, beacon, came_from, now))

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self._perform(self.rules.tick(self._now()))
        finally:
            self._schedule()  # also after a failure: the next tick comes whatever this one met

    def _schedule(self) -> None:
        """Wake when the rules have something next. Never later than that, and not too often."""
        if not self._is_started:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = (self.rules.next_at() - self._now()) / NS
        self._timer = self._loop.call_later(max(TICK_SPACING_S, delay_s), self._on_timer)

    # --- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._perform_one(effect)
        self._schedule()

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case Announce():
                self._look_around()
                self._lan.broadcast(self._sealed(effect.number))
            case Ask():
                packet = self._sealed(effect.number, is_question=True)
                for host in effect.hosts:
                    self._lan.send(packet, host)
            case Answer():
                self._lan.send(self._sealed(effect.number), effect.to.host, effect.to.port)
            case Dial():
                self._run(self._dial(effect))
            case ResolveNames():
                self._run(self._resolve())
            case RunHook():
                self._run(self._ask_hook())
            case Remember():
                self._save()
            case CopySeen():
                log.error("the host at %s uses the identity of this one: a copy of its state directory?", effect.source)
                self.on_copy(effect.source)
            case _:
                assert_never(effect)

    def _sealed(self, number: int, *, is_question: bool = False) -> bytes:
        assert self._seals is not None  # switched off, nothing asks for a packet
        port, packed = self._reached_at()
        beacon = Beacon(port, tuple(dict.fromkeys(packed))[:BEACON_ADDRESSES_MAX], is_question)
        return self._seals.seal(self._node, number, beacon)

    def _reached_at(self) -> tuple[int, list[bytes]]:
        """Port and addresses, the best first."""
        if self._told is not None:
            return self._told.port, [ipaddress.ip_address(address.host).packed for address in self._told_addresses]
        return self._listening, [interface.packed for interface in self._interfaces]

    def _look_around(self) -> None:
        """Interfaces come and go; once an interval is often enough to see it, and costs less than being told."""
        try:
            now_there = self._find(self._options.bind)
        except ConfigError:  # what we are bound to is away: so are we
            now_there = []
        except OSError as error:
            log.warning("the interfaces of this host cannot be read: %s", error)
            return
        if now_there != self._interfaces:
            log.info("addresses of this host: %s", ", ".join(one.address for one in now_there) or "none")
            self._interfaces = now_there
            self._lan.open(now_there)
            self.rules.on_other_interfaces(self._now())
            self.on_moved()

    def _run(self, work: Coroutine[Any, Any, object], name: str = "abid discovery") -> None:
        task = self._loop.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _dial(self, effect: Dial) -> bytes | Exception:
        node: bytes | None = None
        try:
            node = await self._dial_out(effect.address, effect.node)
        except (OSError, AbiError) as error:
            log.debug("nobody is met at %s: %s", effect.address, error)
            return error
        else:
            return node
        finally:
            self._perform(self.rules.on_dialled(effect.address, node, self._now()))

    async def _resolve(self) -> None:
        """One at a time: names whose server is dead take longer than it is until they are asked for again."""
        if self._is_resolving:
            return
        self._is_resolving = True
        try:
            told = [] if self._told is None else [self._told]
            async for place, found in lookup.each_resolved([*told, *self._names]):
                if place == self._told:
                    # Until the name is known, and while it is not, a beacon says of us only that we live.
                    self._told_addresses = found or self._told_addresses
                if place in self._names:
                    self._propose(found, Origin.CONFIGURED)
        finally:
            self._is_resolving = False

    async def _ask_hook(self) -> None:
        try:
            places = await lookup.run_hook(self._options.exec_hook, self._port)
        except lookup.HookFailed as error:
            log.warning("%s", error)
            return
        async for _, found in lookup.each_resolved(places):
            self._propose(found, Origin.LISTED)

    def _propose(self, found: Iterable[Address], origin: Origin) -> None:
        self.rules.propose(found, origin, self._now())
        self._schedule()

    def _save(self) -> None:
        """In a thread, since disks are slow; one at a time, and again if there was more to remember meanwhile."""
        self._must_save = True
        if not self._saving:
            self._saving = True
            self._run(self._save_all(), _SAVING)

    async def _save_all(self) -> None:
        while self._must_save:
            self._must_save = False
            try:
                await asyncio.to_thread(remembered.save, self._folder, self.peers)
            except OSError as error:
                log.warning("the addresses of peers cannot be remembered: %s", error)
        self._saving = False


_SAVING: Final = "abid discovery remembers"
