"""What this host is in its cluster, in a small file beside its credentials: its number there, and the port it took.

Each number has a Raft store of its own: who goes on under another number begins with an empty log.
"""

from __future__ import annotations

import asyncio
import errno
import json
from pathlib import Path
from typing import Final, NamedTuple

from abid.cluster.credentials import damaged, write_private
from abid.core.raft.interface import Output
from abid.core.raft.messages import Snapshot
from abid.raft_store import RaftStore

FILE: Final = "standing.json"
ROOM_S: Final = 10.0
"""For a full disk to have room again, before a cluster is founded on it."""


class Standing(NamedTuple):
    number: int
    port: int
    hints: tuple[str, ...]
    """Where members were to be found when this host joined."""
    machine: str = ""
    """On which it woke last (``twins.machine``); "" is any."""

    def store_path(self, folder: Path) -> Path:
        return folder / f"raft-{self.number}.sqlite"


def load(folder: Path) -> Standing:
    """Raises CredentialsDamaged and OSError."""
    path = folder / FILE
    try:
        words = json.loads(path.read_text())
        hints, machine = tuple(map(str, words["hints"])), str(words.get("machine", ""))
        return Standing(int(words["number"]), int(words["port"]), hints, machine)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise damaged(path, error) from None


def save(folder: Path, standing: Standing) -> None:
    """Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / FILE, json.dumps(standing._asdict()).encode())


def settle(folder: Path, machine: str) -> None:
    """This host is at home on this machine from now on. Raises CredentialsDamaged and OSError."""
    save(folder, load(folder)._replace(machine=machine))


async def begin(path: Path, snapshot: Snapshot) -> None:
    """A store with this in it, and nothing else. Raises OSError and what SQLite does."""
    loop = asyncio.get_running_loop()
    store = _empty(path)
    written: asyncio.Future[Exception | None] = loop.create_future()

    def done(error: Exception | None) -> None:
        loop.call_soon_threadsafe(written.set_result, error)

    store.store(Output(snapshot=snapshot), done)
    await asyncio.wait([written], timeout=ROOM_S)
    why = store.waits
    store.close()
    if not written.done():
        raise OSError(errno.ENOSPC, why or "the disk does not answer", str(path))
    if (error := written.result()) is not None:
        raise error


def _empty(path: Path) -> RaftStore:
    path.unlink(missing_ok=True)
    store = RaftStore(path)
    store.load()
    return store


def forget(folder: Path) -> None:
    """With all that was agreed on, as far as this host knew it. Raises OSError."""
    (folder / FILE).unlink(missing_ok=True)
    for path in folder.glob("raft-*.sqlite*"):
        path.unlink(missing_ok=True)
