"""A member whose daemon starts: until it takes part again, it is a member, but out of its cluster, and says why.

1. Its certificate ran out while it slept, and nobody has renewed it yet. Perhaps nobody else is up yet, and no single
   member's word is the last: it is tried again.
2. A port is taken, an address not up yet, a disk full: tried again.
3. A file is damaged. Trying mends nothing, so a person is told which it is and what to do; the daemon that is started
   after that reads it anew.

It never becomes a host that belongs to no cluster by itself: who is told so founds another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from abi.backoff import Backoff
from abi.errors import AbiError, NodeUnreachable, Timeout
from abid.cluster.certificates import CertificateError
from abid.cluster.consensus import Broken
from abid.cluster.credentials import CredentialsDamaged
from abid.cluster.refusal import PeerRefused
from abid.raft_store import StoreError

log = logging.getLogger(__name__)

ASK_AGAIN_MS_MAX: Final = 60_000
"""Between two attempts to have a certificate renewed that ran out: a month has gone by, and a minute matters little."""
AGAIN_MS_MAX: Final = 10_000
"""Between two attempts that ask nobody else anything."""
BASE_MS: Final = 1_000
UNANSWERED: Final = (NodeUnreachable, PeerRefused, Timeout)
"""What may be otherwise the next time, or when another member is asked."""
_PASSING: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_LOCKED,
     sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY}
)  # fmt: skip
"""What SQLite says of the disk and not of the file."""


class OutOfCluster(AbiError):
    """This host is a member, and does not take part in its cluster just now."""

    code = "out_of_cluster"


class Outside(NamedTuple):
    """Why a member is out of its cluster, and what can be done."""

    why: str
    hint: str

    def error(self) -> OutOfCluster:
        return OutOfCluster(f"this host is a member of its cluster, but out of it: {self.why}", hint=self.hint)


class Waking:
    """``wake`` makes this host the member that it was, or raises AbiError or OSError; ``outside`` is why it has not
    come to be so."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], Awaitable[None]]) -> None:
        self.outside: Outside | None = None
        """Set from outside, too, where only a person can decide."""
        self._loop = loop
        self._wake = wake
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Once now, and later again if that may help."""
        error = await self._tried()
        if error is not None:
            self.again(error)

    def again(self, error: AbiError | OSError) -> None:
        """It did not come to be so."""
        if self._note(error):
            self._task = self._loop.create_task(self._work(error), name="abid wakes as a member")

    def close(self) -> None:
        """It is not wanted any more."""
        if self._task is not None:
            self._task.cancel()
        self._task, self.outside = None, None

    async def _tried(self) -> AbiError | OSError | None:
        try:
            await self._wake()
        except (AbiError, OSError) as error:
            return error
        self.outside = None
        return None

    async def _work(self, error: AbiError | OSError) -> None:
        lots, retry = random.SystemRandom(), 0
        while True:
            cap_ms = ASK_AGAIN_MS_MAX if isinstance(error, UNANSWERED) else AGAIN_MS_MAX
            await asyncio.sleep(Backoff(base_ms=BASE_MS, cap_ms=cap_ms).wait_ns(retry, lots.random()) / 1e9)
            retry += 1
            found = await self._tried()
            if found is None:
                log.info("this host takes part in its cluster again")
                return
            error = found
            if not self._note(error):
                return

    def _note(self, error: AbiError | OSError) -> bool:
        """Whether to try again."""
        found, is_tried_again = outside(error)
        if found != self.outside:
            log.error("this host is out of its cluster: %s", found.why)
        self.outside = found
        return is_tried_again


def outside(error: AbiError | OSError) -> tuple[Outside, bool]:
    """In words, and whether it may pass."""
    if isinstance(error, UNANSWERED):
        why = f"its certificate ran out, and no member has renewed it yet: {error.message}"
        return Outside(why, "it is when a member answers; `abi cluster leave --force` ends the membership"), True
    why, hint = (error.message, error.hint) if isinstance(error, AbiError) else (str(error), "")
    if not may_pass(error):
        return Outside(why, f"{hint}; then start the daemon again" if hint else "its log says more"), False
    if isinstance(error, StoreError):  # whose hint is for a file that is damaged
        hint = ""
    return Outside(why, "; ".join(filter(None, [hint, "it is tried again by itself"]))), True


def may_pass(error: AbiError | OSError) -> bool:
    """Whether it may be otherwise a little later, though nobody has mended a file."""
    if isinstance(error, StoreError):
        cause = error.__cause__
        if isinstance(cause, sqlite3.Error):
            return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _PASSING
        return isinstance(cause, OSError)
    return not isinstance(error, Broken | CredentialsDamaged | CertificateError | ssl.SSLError)
