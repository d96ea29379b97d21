"""What two members ask each other before anything else on a new connection: what each has, and where its log ends.

1. voters are asked whether another host with its identity is there (``elsewhere``); if so, it is sent away
2. whoever connects is asked where it stands; until it has said so, nothing that it says about Raft is listened to
3. it stands behind what it promised us (``core.raft.recollection``): its disk was put back to an earlier day
4. it is told, takes part no more, and asks to be readmitted under another number, with nothing promised
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from abi.backoff import Backoff
from abi.errors import AbiError, Timeout
from abid.cluster.peer import Peer
from abid.cluster.requests import BUSY, Body, PeerSaidNo
from abid.core.cluster import commands
from abid.core.raft.recollection import Standing

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

ABOUT: Final = "about"
FORGOTTEN: Final = "forgotten"
READMIT: Final = "readmit"
NOTHING_KNOWN: Final[dict[str, Any]] = {"cpu_cores": None, "has_gpu": None}
"""Of a member that this host was never connected with."""


class Vetting:
    """``own``: what others are told that this host has."""

    def __init__(self, member: Member, own: dict[str, Any]) -> None:
        self._member = member
        self._vetted: set[Peer] = set()
        self._asked_us: set[Peer] = set()
        """They look at us as we do at them, and ask where we stand when nothing else is in the way."""
        self._abouts: dict[str, dict[str, Any]] = {member.node: own}
        self._lots = random.SystemRandom()

    def about(self, node: str) -> dict[str, Any]:
        """What this member has, by what it said when it was connected last."""
        return self._abouts.get(node, NOTHING_KNOWN)

    def listens_to(self, peer: Peer) -> bool:
        """Whether its messages count yet."""
        return peer in self._vetted

    def forget_node(self, node: str) -> None:
        """It is no member any more."""
        self._abouts.pop(node, None)

    def forget(self, peer: Peer) -> None:
        """The connection ended."""
        self._vetted.discard(peer)
        self._asked_us.discard(peer)

    async def ask(self, peer: Peer) -> None:
        """Who is it, and does it remember what it promised? Asked until it is answered or the connection ends: it is
        not listened to before, however slow one of the two is just now."""
        pauses, retry = Backoff(), 0
        while not await self._is_settled(peer):
            await asyncio.sleep(pauses.wait_ns(retry, self._lots.random()) / 1e9)
            retry += 1

    async def _is_settled(self, peer: Peer) -> bool:
        """False if asking again may help."""
        member = self._member
        why_not = await member.elsewhere.why_not(peer)
        if not peer.is_open:
            return True
        if why_not is not None:
            member.peers.send_away(peer, why_not)
            return True
        try:
            said = await member.requests.ask(peer, ABOUT, {}, member.request_timeout_s())
            number, standing = int(said["number"]), Standing(*map(int, said["standing"]))
            self._abouts[peer.node] = {"cpu_cores": int(said["cpu_cores"]), "has_gpu": bool(said["has_gpu"])}
            missing = member.consensus.raft.recollection.missing(number, standing) or self._outgrown(peer.node, number)
            if missing is None:
                self._vetted.add(peer)
                self._settle(peer)
                return True
            log.warning("node %s has forgotten what it promised: %s; it is to be readmitted", peer.node, missing)
            await member.requests.ask(peer, FORGOTTEN, {"missing": missing}, member.request_timeout_s())
            return not peer.is_open  # until it is readmitted, which takes a majority
        except (AbiError, KeyError, TypeError, ValueError) as error:
            log.info("node %s did not say where it stands: %s", peer.node, error)
            is_slow = isinstance(error, Timeout) or (isinstance(error, PeerSaidNo) and error.code == BUSY)
            return not (is_slow and peer.is_open)

    def _outgrown(self, node: str, number: int) -> str | None:
        """Its disk is of a day before it was readmitted, or the answer that gave it another number was lost."""
        known = self._member.consensus.facts.of_node(node)
        is_later = known is not None and known.number > number
        return f"it was member {number}, and goes on as another" if is_later else None

    def _settle(self, peer: Peer) -> None:
        if peer in self._vetted and peer in self._asked_us:
            self._member.on_settled(peer)

    async def on_about(self, peer: Peer, body: Body) -> Body:
        self._asked_us.add(peer)
        self._settle(peer)
        standing = self._member.consensus.raft.standing
        words = {"number": self._member.number, "standing": [standing.term, standing.vote, standing.last_index]}
        return {**self._abouts[self._member.node], **words}

    async def on_forgotten(self, peer: Peer, body: Body) -> Body:
        """A member remembers more of us than we do. Nothing may be promised any more under this number."""
        self._member.consensus.close()
        self._member.on_forgotten(peer, str(body["missing"]))
        return {}

    async def on_readmit(self, peer: Peer, body: Body) -> Body:
        """A member whose disk was restored asks for another number. The leader is asked, wherever it is."""
        member = self._member
        number = int(body["number"])
        known = member.consensus.facts.of_node(peer.node)
        if known is None or known.number < number:
            raise AbiError(f"node {peer.node} is not member {number}", code="denied")
        result = await member.asking.command(commands.Readmit, number=known.number)
        if result.refused:
            raise AbiError(result.told, code=result.refused)
        return {"number": result.value}
