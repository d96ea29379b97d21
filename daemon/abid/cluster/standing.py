"""What this host is in its cluster, in a small file beside its credentials: its number there, and the port it took.

Each number has a Raft store of its own: who goes on under another number begins with an empty log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, NamedTuple

from abid.cluster.credentials import damaged, write_private

FILE: Final = "standing.json"


class Standing(NamedTuple):
    number: int
    port: int
    hints: tuple[str, ...]
    """Where members were to be found when this host joined."""

    def store_path(self, folder: Path) -> Path:
        return folder / f"raft-{self.number}.sqlite"


def load(folder: Path) -> Standing:
    """Raises CredentialsDamaged and OSError."""
    path = folder / FILE
    try:
        words = json.loads(path.read_text())
        return Standing(int(words["number"]), int(words["port"]), tuple(map(str, words["hints"])))
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise damaged(path, error) from None


def save(folder: Path, standing: Standing) -> None:
    """Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / FILE, json.dumps(standing._asdict()).encode())


def forget(folder: Path) -> None:
    """With all that was agreed on, as far as this host knew it. Raises OSError."""
    (folder / FILE).unlink(missing_ok=True)
    for path in folder.glob("raft-*.sqlite*"):
        path.unlink(missing_ok=True)
