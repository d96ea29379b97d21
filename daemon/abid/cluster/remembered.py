"""Peers on disk: where members were met, so that a restarted host finds them where nothing is broadcast.

One JSON file, written whole or not at all. It is a memory and no record: without it, or when it is damaged, discovery
goes on with its other sources. A damaged one is put aside and not overwritten, since people's own entries were in it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from abid.cluster.lookup import Place, address_of, is_address
from abid.core.discovery import REMEMBERED_MAX, Peer

log = logging.getLogger(__name__)

FILE: Final = "peers.json"
LAYOUT: Final = 1
BYTES_MAX: Final = 1 << 20
"""Seven times what ``REMEMBERED_MAX`` peers take: what is longer was not written by us."""


def load(folder: Path) -> list[Peer]:
    """Those on disk, whoever was met last at the end; none where there is no file, or none that can be read."""
    path = folder / FILE
    try:
        if path.stat().st_size > BYTES_MAX:
            raise ValueError(f"longer than {BYTES_MAX} bytes")
        words = json.loads(path.read_bytes())
        if words["layout"] != LAYOUT:
            raise ValueError(f"layout {words['layout']!r}, this abi knows {LAYOUT}")
        return [_peer(entry) for entry in words["peers"]][-REMEMBERED_MAX:]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _put_aside(path, error)
        return []


def _peer(entry: Any) -> Peer:
    host, port, node = entry["host"], entry["port"], bytes.fromhex(entry["node"])
    if not isinstance(host, str) or not is_address(host):
        raise ValueError(f"{host!r} is no address")
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"{port!r} is no port")
    if len(node) not in (0, 4):
        raise ValueError(f"{entry['node']!r} is no node")
    return Peer(address_of(Place(host, port)), node, entry["registered"] is True)


def _put_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".damaged")
    try:
        os.replace(path, aside)
    except OSError:
        aside = path
    log.warning("%s cannot be read (%s) and lies aside as %s; peers are found anew", path, error, aside.name)


def save(folder: Path, peers: Iterable[Peer]) -> None:
    """The old file or the new one is there at every moment. Raises OSError. Blocks for as long as the disk takes."""
    entries = [
        {
            "host": peer.address.host,
            "port": peer.address.port,
            "node": peer.node.hex(),
            "registered": peer.is_registered,
        }
        for peer in peers
    ]
    temporary = folder / f"{FILE}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps({"layout": LAYOUT, "peers": entries}, indent=1).encode())
        file.flush()
        os.fsync(fd)
    os.replace(temporary, folder / FILE)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
