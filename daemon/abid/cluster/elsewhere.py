"""Whether a host that has just connected is connected elsewhere, too, in another life: a state directory was copied.

``peers`` sees it where both come to one member. Where each comes to another, both would be let in, and vote as one.

1. Before anybody is listened to (``vetting``), each voter that is connected here is asked about it. Who asks has taken
   note of its own connection before; so of two members that are about to let in two hosts with one identity, one at
   least hears of the other.
2. A member that is connected with this node in another life has that one prove that it is there: by the key of its
   certificate, over the asker's nonce and its own life. So a member that is out of its mind shuts nobody out.
3. The newcomer is a COPY where the other one was let in before. If that came just now, too, neither is let in
   (CONTENDED), and both try again.
4. Two members that meet compare the voters that each has let in before. Where they differ, both end the connection,
   and it goes on with 1.

Members that do not hear each other cannot tell each other: a host that is copied while they are apart may vote on both
sides.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from abi.errors import AbiError
from abid.cluster import certificates, credentials
from abid.cluster.peer import Peer
from abid.cluster.peers import PROBE_S
from abid.cluster.refusal import Code, PeerRefused, refused
from abid.cluster.requests import Body

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

LIVES: Final = "lives"
"""Are these nodes connected with you, in other lives than these?"""
ALIVE: Final = "alive"
"""Prove that you are there."""
ASKED_S: Final = PROBE_S + 1.0
"""Whoever is asked asks the other one in turn. Who does not answer in time knows nothing."""
NONCE_BYTES: Final = 16
LIVES_MAX: Final = 16
"""In one question: more than there are voters."""


class Other(NamedTuple):
    """A host that is alive, with the identity of one that is connected here."""

    node: str
    is_let_in: bool
    where: str
    """The node that is connected with it."""


class Elsewhere:
    """One member's view."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def why_not(self, peer: Peer) -> PeerRefused | None:
        """Why this peer is not let in; None if no voter that is connected here knows another one."""
        asked = [other for other in self._voters() if other.node != peer.node]
        lives = {peer.node: peer.words.life}
        for others in await asyncio.gather(*(self._ask(other, lives) for other in asked)):
            for other in others:
                self._member.twins.note(peer.node, peer.address)
                if other.is_let_in:
                    text = f"another host is alive that is node {peer.node}, too: node {other.where} speaks with it"
                    return refused(Code.COPY, text)
                return _contended(other)
        return None

    async def compare(self, peer: Peer) -> None:
        """It was let in, and so were others before that it may know as somebody else."""
        member = self._member
        ours = {other.node: other for other in self._voters() if other is not peer and member.vetting.listens_to(other)}
        for other in await self._ask(peer, {node: known.words.life for node, known in ours.items()}):
            member.twins.note(other.node, ours[other.node].address)
            member.peers.send_away(ours[other.node], _contended(other))

    def _voters(self) -> list[Peer]:
        """That are connected, and alive."""
        member = self._member
        numbers = [number for number in member.consensus.configuration.all_voters if member.is_alive(number)]
        nodes = (member.node_of(number) for number in numbers)
        return [peer for node in nodes if node is not None and (peer := member.peers.connected.get(node)) is not None]

    async def _ask(self, peer: Peer, lives: Mapping[str, int]) -> list[Other]:
        if not lives:
            return []
        nonce = os.urandom(NONCE_BYTES)
        try:
            said = await self._member.requests.ask(peer, LIVES, {"lives": lives, "nonce": nonce}, ASKED_S)
            return [
                Other(str(each["node"]), bool(each["is_let_in"]), peer.node)
                for each in said["others"]
                if self._is_proven(each, lives, nonce)
            ]
        except (AbiError, KeyError, TypeError, ValueError) as error:
            log.info("node %s did not say whom it is connected with: %s", peer.node, error)
            return []

    def _is_proven(self, said: Mapping[str, Any], lives: Mapping[str, int], nonce: bytes) -> bool:
        """Whether a host with this node's key, in another life, has signed the nonce. Raises as ``_ask`` expects."""
        node, life = str(said["node"]), int(said["life"])
        certificate = certificates.load_certificate(bytes(said["certificate"]))
        authority = certificates.load_certificate(self._member.credentials.authority_certificate)
        return (
            lives[node] != life
            and certificates.is_issued_by(certificate, authority)
            and certificates.subject_of_certificate(certificate).node == node
            and certificates.proof_holds(certificate, _statement(nonce, life), bytes(said["proof"]), certificates.LIVES)
        )

    # As one who is asked.

    async def on_lives(self, peer: Peer, body: Body) -> Body:
        nonce = _nonce(body)
        lives = {str(node): int(life) for node, life in dict(body["lives"]).items()}
        if len(lives) > LIVES_MAX:
            raise ValueError(f"{len(lives)} nodes, and {LIVES_MAX} at most are answered for")
        found = await asyncio.gather(*(self._other(node, life, nonce) for node, life in lives.items()))
        return {"others": [each for each in found if each is not None]}

    async def _other(self, node: str, life: int, nonce: bytes) -> dict[str, Any] | None:
        member = self._member
        known = member.peers.connected.get(node)
        if known is None or known.words.life == life:
            return None
        try:
            proof = await member.requests.ask(known, ALIVE, {"nonce": nonce}, PROBE_S)
        except AbiError as error:
            log.info("node %s is said to be in another life, and does not answer us: %s", node, error)
            return None
        is_let_in = member.vetting.listens_to(known)
        return {**proof, "node": node, "life": known.words.life, "is_let_in": is_let_in}

    async def on_alive(self, peer: Peer, body: Body) -> Body:
        statement, folder = _statement(_nonce(body), self._member.peers.life), self._member.folder
        proof = certificates.prove(credentials.member_key(folder), statement, certificates.LIVES)
        return {"certificate": credentials.member_certificate(folder), "proof": proof}


def _nonce(body: Body) -> bytes:
    nonce = bytes(body["nonce"])
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce of {len(nonce)} bytes")
    return nonce


def _statement(nonce: bytes, life: int) -> bytes:
    return nonce + life.to_bytes(8, "big")


def _contended(other: Other) -> PeerRefused:
    return refused(Code.CONTENDED, f"two hosts come as node {other.node} at once, the other one to node {other.where}")
