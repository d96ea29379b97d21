"""What a daemon keeps on disk: who this host is, and how often it has started.

The identity is drawn once. The incarnation is counted and fsynced at each start, before anything is acknowledged, so
that what an earlier life of this daemon said can always be told from what this one says.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from abi.errors import AbiError

FILE = "identity.json"


class Identity(NamedTuple):
    node: bytes
    """4 bytes."""
    incarnation: int


class StateDamaged(AbiError):
    """The identity file exists and is not readable as one."""

    code = "bad_config"


def next_incarnation(state_dir: Path) -> Identity:
    """Read, count up, write durably. Raises StateDamaged and OSError (a full disk, a read-only one)."""
    path = state_dir / FILE
    identity = _read(path)
    identity = Identity(identity.node, identity.incarnation + 1)
    _write(path, identity)
    return identity


def _read(path: Path) -> Identity:
    try:
        words = json.loads(path.read_text())
        node, incarnation = bytes.fromhex(words["node"]), int(words["incarnation"])
        if len(node) != 4 or incarnation < 0:
            raise ValueError("out of range")
    except FileNotFoundError:
        return Identity(secrets.token_bytes(4), 0)
    except (ValueError, KeyError, TypeError) as error:
        raise StateDamaged(
            f"{path} is damaged ({error})",
            hint="restore it from a backup; or remove it, and this host gets a new identity: a member of a cluster is "
            "out of it then, leaves it (`abi cluster leave --force`) and joins it as a new host",
        ) from None
    return Identity(node, incarnation)


def _write(path: Path, identity: Identity) -> None:
    """The old file or the new one is there at every moment, never half of one."""
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps({"node": identity.node.hex(), "incarnation": identity.incarnation}).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
