"""That the cluster knows where this host is: whenever that changes it is said, until it is agreed on."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from abi.backoff import Backoff
from abi.errors import AbiError
from abid.core.cluster import commands

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

LEADER_S: Final = 600.0
"""For a leader to be found, before it is looked again; a host that moved is found by the others' beacons meanwhile."""
AGAIN_MS_MAX: Final = 60_000
"""Between two attempts: what was asked in vain has taken ``network.request_timeout_ms`` as well."""


class Announcing:
    """One member's, in whose name it tells peers and the cluster."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._name = ""
        self._wanted: tuple[str, tuple[str, ...]] | None = None
        """What the cluster is to know, until it does."""
        self._is_working = False

    def begin(self, name: str) -> None:
        """From now on, as the host of this name: it may have moved while its daemon was down, and may move."""
        self._name = name
        self.on_told(self._member.listening.told)

    def on_told(self, places: tuple[str, ...]) -> None:
        """This is what others are to dial."""
        self._member.peers.addresses = places
        if not places:
            return
        self._wanted = self._name, places
        if not self._is_working:
            self._is_working = True
            self._member.later(self._work())

    def on_moved(self, is_one_gone: bool) -> None:
        """The addresses of this host are others. Whoever was connected over one that is gone does not know it yet."""
        member = self._member
        if is_one_gone:
            member.peers.on_woken()
        if member.discoverer is not None:
            member.discoverer.on_woken()

    async def _work(self) -> None:
        """Until the cluster knows it."""
        lots, retry = random.SystemRandom(), 0
        try:
            while self._wanted is not None:
                wanted = self._wanted
                try:
                    is_done = await self._told(*wanted)
                except AbiError as error:
                    log.warning("the cluster does not know where this host is now: %s", error)
                    await asyncio.sleep(Backoff(cap_ms=AGAIN_MS_MAX).wait_ns(retry, lots.random()) / 1e9)
                    retry += 1
                    continue
                if is_done and self._wanted == wanted:
                    self._wanted = None
        finally:
            self._is_working = False

    async def _told(self, name: str, places: tuple[str, ...]) -> bool:
        """Whether it has been said, or need not be. Raises AbiError."""
        member, consensus = self._member, self._member.consensus
        await member.wait(lambda: consensus.leader != 0 and member.number in consensus.facts.members, LEADER_S)
        known = consensus.facts.members.get(member.number)
        if known is None:
            return False
        if (known.name, known.addresses) != (name, places):
            await member.asking.command(commands.Announce, number=member.number, name=name, addresses=places)
        return True
