"""What a person is told to do next, where whoever refused does not know the way: it is said by another host, or by a
rule that knows nothing of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from abi.errors import AbiError, NodeUnreachable
from abid.cluster.refusal import Code
from abid.state import FILE

ANOTHER_TOKEN: Final = (
    "`abi cluster token` on a member makes another; `abi cluster token --list` shows what can be used"
)
OF_ADMISSION: Final[dict[str, str]] = {
    "wrong_token": ANOTHER_TOKEN,
    "expired_token": ANOTHER_TOKEN,
    "full": "`abi network remove` sends away who is gone for good",
    Code.REVOKED: "on that host: `abi cluster leave`, stop abid, remove identity.json of its state directory, start it",
}
"""What the leader advises a host that it does not let in, by code."""


LET_GO: Final = "`abi cluster leave` lets go of it, and says how this host comes back"
"""For a host that was sent away and still has what made it a member."""


def to_come_back(state_dir: Path) -> str:
    """For a host that was sent away, to become another one."""
    return f"as a new host: stop abid, remove {state_dir / FILE}, start abid, and `abi cluster join` with a new token"


def on_join(error: AbiError, state_dir: Path) -> None:
    """Add to an error by which this host does not become a member what it can do about it."""
    if error.code == Code.REVOKED:
        error.hint = f"it comes back {to_come_back(state_dir)}"
    elif isinstance(error, NodeUnreachable):
        error.hint = "is abid running there, and is its port open? `abi cluster join HOST:PORT` asks another member"


def on_leave(error: AbiError) -> None:
    """The cluster cannot hear of it, and somebody has to decide that this host goes all the same."""
    error.hint = (
        "`abi cluster leave --force` goes whether they agree or not; `abi network remove` on one of them, later, "
        "makes them forget this host"
    )
