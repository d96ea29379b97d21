"""What this host is in its cluster, in a small file beside its credentials: its number there, and the port it took.

Each number has a Raft store of its own: who goes on under another number begins with an empty log.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from pathlib import Path
from typing import Final, NamedTuple

from abid.cluster.credentials import damaged, write_private
from abid.core.raft.interface import Output
from abid.core.raft.messages import Snapshot
from abid.raft_store import RaftStore

log = logging.getLogger(__name__)

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
    took_part: bool = False
    """Whether this host has heard, under this number, what its cluster agreed on. Its log has not been empty since, and
    its certificate has lain beside it: where one is missing now it was lost, and not never written by a host that lost
    its power while it was about to become a member."""

    def store_path(self, folder: Path) -> Path:
        return store_path(folder, self.number)

    def encoded(self) -> bytes:
        return json.dumps(self._asdict()).encode()


def store_path(folder: Path, number: int) -> Path:
    return folder / f"raft-{number}.sqlite"


def load(folder: Path) -> Standing:
    """Raises CredentialsDamaged and OSError."""
    path = folder / FILE
    try:
        words = json.loads(path.read_text())
        hints, machine = tuple(map(str, words["hints"])), str(words.get("machine", ""))
        took_part = bool(words.get("took_part", False))
        return Standing(int(words["number"]), int(words["port"]), hints, machine, took_part)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise damaged(path, error) from None


def save(folder: Path, standing: Standing) -> None:
    """Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / FILE, standing.encoded())


def settle(folder: Path, machine: str) -> None:
    """This host is at home on this machine from now on. Raises CredentialsDamaged and OSError."""
    save(folder, load(folder)._replace(machine=machine))


def note_part(folder: Path) -> None:
    """This host takes part. Raises CredentialsDamaged and OSError."""
    save(folder, load(folder)._replace(took_part=True))


def is_saved(folder: Path, standing: Standing) -> bool:
    """What is news of a member that runs; where the disk does not take it, the next start brings it again."""
    try:
        save(folder, standing)
    except OSError as error:
        log.warning("it is not noted yet where this host stands: %s", error)
        return False
    return True


def is_of_member(folder: Path) -> bool:
    """Whether this host took part in a cluster and has not left it. Raises CredentialsDamaged and OSError."""
    return (folder / FILE).exists() and load(folder).took_part


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
    clear(path)
    store = RaftStore(path)
    store.load()
    return store


def clear(path: Path) -> None:
    """Whoever looks for a store there finds none. Raises OSError."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """With all that was agreed on, as far as this host knew it. Raises OSError."""
    (folder / FILE).unlink(missing_ok=True)
    for path in folder.glob("raft-*.sqlite*"):
        path.unlink(missing_ok=True)
