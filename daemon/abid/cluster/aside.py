"""Why this host stands aside: it was removed from its cluster, or refused as a copy of a host that is alive.

That is kept in a file beside its credentials, so that no restart forgets it, and the host knocks nowhere any more. Of
one that was removed the authority's key and the cluster's secret go at once. That is a courtesy: whoever has its disk,
or had it before, has them (SECURITY.md says what to do then).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final, NamedTuple

from abi.errors import AbiError
from abid.cluster.credentials import AUTHORITY_KEY, JOIN_KEY, NEXT_KEY, SECRET, write_private
from abid.cluster.refusal import Code
from abid.cluster.waking import Outside
from abid.state import FILE as IDENTITY

FILE: Final = "aside.json"


class Aside(NamedTuple):
    """``code`` is REVOKED or COPY; ``at_ms``: since the epoch."""

    code: str
    why: str
    at_ms: int


def load(folder: Path) -> Aside | None:
    """A file that is there and cannot be read counts, too. Raises OSError."""
    try:
        words = json.loads((folder / FILE).read_text())
        return Aside(str(words["code"]), str(words["why"]), int(words["at_ms"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Aside(Code.COPY, f"{folder / FILE} is there, and is not readable", 0)


def stand(folder: Path, error: AbiError) -> Aside:
    """From now on. Raises OSError."""
    aside = Aside(error.code, error.message, int(time.time() * 1000))
    write_private(folder / FILE, json.dumps(aside._asdict()).encode())
    if aside.code == Code.REVOKED:
        for name in (AUTHORITY_KEY, NEXT_KEY, JOIN_KEY, SECRET):
            (folder / name).unlink(missing_ok=True)
    return aside


def end(folder: Path, aside: Aside | None) -> str:
    """This host has left. What it has to do to join again, if a token will not do. Raises OSError."""
    if aside is not None and aside.code == Code.COPY:
        # Else its next token would bring it in as the other one, as soon as that is away for a moment.
        (folder.parent / IDENTITY).unlink(missing_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    return RESTART if aside is not None and aside.code == Code.COPY else ""


RESTART: Final = "under an identity of its own: stop abid, start it, and `abi cluster join` with a new token"


def outside(folder: Path, aside: Aside) -> Outside:
    """Of a copy: what it says to whoever asks it, and what is to be done."""
    return Outside(
        f"it was refused as a copy, since another host with the same identity is alive ({aside.why})",
        "if this is the copy, `abi cluster leave --force` here, and a restart of abid gives it an identity of its own; "
        f"if the other one is, do that there, then remove {folder / FILE} here and restart abid",
    )
