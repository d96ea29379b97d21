"""A member whose log is gone: its database was removed, or is empty, though it took part under its number.

Raft holds only while nobody forgets what it promised (``core.raft.recollection``). Whose log is empty has forgotten all
of it and, unlike one whose disk was put back to an earlier day, knows that, also where all others were down with it and
remember nothing.

1. It takes no part: it votes for nobody and acknowledges nothing. It is connected, and out of its cluster.
2. It asks those whom it meets to be readmitted under another number (``vetting.READMIT``), with nothing promised. That
   takes a majority of those who vote, without its own vote.
3. Where it was the only one who voted, nobody can agree to that, and a person is told what is missing. Which of the two
   it is it cannot know: that stood in the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

from abi.backoff import Backoff
from abi.errors import AbiError
from abid.cluster import standing
from abid.cluster.waking import Outside

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

ASK_AGAIN_MS_MAX: Final = 30_000
"""A majority that is not there yet may come at any time, and one question is all that it costs."""


def look(member: Member) -> None:
    """Something has changed: has this host heard what its cluster agreed on? Then a log that is empty is lost."""
    if member.took_part or member.number not in member.consensus.facts.members:
        return
    member.took_part = True  # also if it cannot be noted: a disk that fails slowly is not to be tried at each change
    try:
        standing.note_part(member.folder)
    except (AbiError, OSError) as error:
        log.warning("the next start notes that this host takes part: %s", error)


def lose(member: Member, path: Path) -> None:
    """This member's log, which was there, is gone; to be said before its ``start``."""
    member.lost = Outside(
        f"{path} is missing or empty, which held what the cluster agreed on and what this host promised as member "
        f"{member.number}",
        "it is readmitted by itself when most of those who vote are connected; if it was the only one who voted, stop "
        f"abid, put a backup in the place of {path.name}* and start it, or end this cluster (`abi cluster leave "
        "--force` on each host) and found another",
    )
    member.consensus.close(member.lost.why)
    log.error("this host is out of its cluster: %s", member.lost.why)


async def ask(member: Member, said: Outside) -> None:
    """To be readmitted, until that has ended this member."""
    pauses, lots, retry = Backoff(cap_ms=ASK_AGAIN_MS_MAX), random.SystemRandom(), 0
    while True:
        if await member.wait(lambda: bool(member.peers.connected), ASK_AGAIN_MS_MAX / 1000):
            member.on_forgotten(lots.choice(list(member.peers.connected.values())), said.why)
            await asyncio.sleep(pauses.wait_ns(retry, lots.random()) / 1e9)
            retry += 1
