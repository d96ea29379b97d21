"""Discovery for a member: what is found is dialled as any member is, and who answers must be one.

Discovery never founds and never admits. It proposes addresses; whether a member of our cluster is behind one is for its
certificate to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from abi.config import Config
from abid.cluster import lookup, remembered
from abid.cluster.discovery import DEFAULT_PORT, Discoverer, Options
from abid.cluster.interfaces import Interface
from abid.cluster.peers import Peers
from abid.cluster.secret import beacon_key
from abid.core.dialling import Address
from abid.state import Identity

log = logging.getLogger(__name__)

LAST_MET_MAX: Final = 8
"""Half of what one dial tries."""


def discoverer(
    loop: asyncio.AbstractEventLoop,
    config: Config,
    identity: Identity,
    secret: bytes,
    port: int,
    folder: Path,
    peers: Peers,
    timeout_s: Callable[[], float],
    find: Callable[[str], list[Interface]],
) -> Discoverer:
    """One for this member; ``secret`` is the cluster's, ``port`` where it listens, ``find`` as
    ``interfaces.found``. Raises ConfigError, UsageError."""

    async def dial(address: Address, node: bytes) -> bytes:
        if node.hex() in peers.connected:
            return node
        # Any member will do: who lives at a remembered address now is for its certificate to say.
        peer = await peers.dial([str(address)], timeout_s())
        return bytes.fromhex(peer.node)

    options = Options(
        enabled=config.boolean("network.discovery_enabled"),
        port=config.integer("network.port"),
        interval_ms=config.integer("network.broadcast_interval_ms"),
        bind=config.text("network.bind"),
        address=config.text("network.address"),
        seeds=config.texts("network.seeds"),
        subnets=config.texts("network.subnets"),
        exec_hook=config.text("network.exec_hook"),
    )
    return Discoverer(
        loop, options, node=identity.node, boot=identity.incarnation, keys=[beacon_key(secret)], listening=port,
        folder=folder, dial=dial, find=find,
    )  # fmt: skip


async def named(texts: Iterable[str], port: int) -> tuple[str, ...]:
    """What a person wants dialled, HOST[:PORT], as HOST:PORT. Raises UsageError and ``lookup.NameUnknown``: a slip of
    the pen must not pass since the token knows other places, too."""
    places = [lookup.parse(text, port or DEFAULT_PORT) for text in texts]
    for place in places:
        if "%" not in place.host and not await lookup.resolved([place]):
            raise lookup.NameUnknown(f"nothing is known of a host {place.host!r}", hint="is it spelled right?")
    return tuple(str(Address(*place)) for place in places)


def last_met(folder: Path) -> tuple[str, ...]:
    """Where members were met, the last first: of a cluster whose hosts have moved, more than is known from the day of
    joining."""
    return tuple(str(place.address) for place in reversed(remembered.load(folder)))[:LAST_MET_MAX]


def registered(folder: Path) -> tuple[str, ...]:
    """What a person named, before this host joined."""
    return tuple(str(place.address) for place in remembered.load(folder) if place.is_registered)
