"""Whether a voter that is connected here is connected elsewhere, too, in another life: a state directory was copied.

``peers`` sees it where both hosts come to one member. Where each comes to another, both would be let in, and vote as
one. So voters compare whom they are connected with:

1. Before a voter is listened to (``vetting``), all others that are connected here are asked about it. Who asks has
   taken note of its own connection before; so of two members that are about to let in two hosts with one identity, one
   at least hears of the other.
2. Members that let in a voter compare with it what they knew before, and all do so now and then: who was asked may
   have been asleep.
3. A member that is connected with a node in another life has that one prove that it is there: by the key of its
   certificate, over the asker's nonce and its own life. So a member that is out of its mind shuts nobody out.
4. Where the other one was let in and ours was not, ours is a COPY. Where neither was, or both were, ours is sent away
   as CONTENDED, the other member does the same, and both hosts try again: whoever is let in first stays.

Members that do not hear each other cannot compare: a host that is copied while they are apart may vote on both sides.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec

from abi.errors import AbiError
from abi.wire.peers import Node
from abid.cluster import certificates, credentials
from abid.cluster.certificates import Subject
from abid.cluster.peer import Peer
from abid.cluster.peers import PROBE_S
from abid.cluster.refusal import Code, PeerRefused, refused
from abid.cluster.requests import Body

if TYPE_CHECKING:
    from cryptography import x509

    from abid.cluster.member import Member

log = logging.getLogger(__name__)

LIVES: Final = "lives"
"""Are these nodes connected with you, in other lives than these?"""
ALIVE: Final = "alive"
"""Prove that you are there."""
ASKED_S: Final = PROBE_S + 1.0
"""Whoever is asked asks the other host in turn. Who does not answer in time knows nothing."""
COMPARED_EVERY_S: Final = 30.0
"""An idle cluster is to cost next to nothing, and this is for who slept in the three seconds in which it was asked."""
NONCE_BYTES: Final = 16
LIVES_MAX: Final = 16
"""In one question: more than there are voters, also while they change."""
NO_LIFE: Final = 0
"""Of a host that is not connected: whoever is, has another."""

Life = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Asked = TypeVar("Asked", bound=msgspec.Struct)
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Challenge(msgspec.Struct):
    """The body of ALIVE."""

    nonce: Nonce


class Question(Challenge):
    """The body of LIVES."""

    lives: Annotated[dict[Node, Life], msgspec.Meta(max_length=LIVES_MAX)]


class Proof(msgspec.Struct):
    """The answer to ALIVE: the nonce and the life, signed by the certificate's key; the certificate in DER."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=4096)]
    proof: Annotated[bytes, msgspec.Meta(max_length=256)]


class Claim(Proof):
    """That a node is connected with the answering member in this life."""

    node: Node
    life: Life
    is_let_in: bool


class Answer(msgspec.Struct):
    """The body of the answer to LIVES."""

    others: Annotated[list[Claim], msgspec.Meta(max_length=LIVES_MAX)]


class Elsewhere:
    """One member's view."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._next_at = 0.0

    async def why_not(self, peer: Peer) -> PeerRefused | None:
        """Why this peer, which has just connected, is not let in; None if nobody knows another one."""
        voters = self._voters()
        if peer not in voters:
            return None
        return await self._verdict(peer, await self._ask_all(peer.node, peer.words.life))

    async def is_alive(self, node: str) -> bool:
        """Whether a host with this identity is there, as another voter proves."""
        return bool(await self._ask_all(node, NO_LIFE))

    def look(self) -> None:
        """Something woke this host anyway: compare with all, if it is time."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_at:
            self._next_at = now + COMPARED_EVERY_S
            for voter in self._voters():
                self._member.later(self.compare(voter))

    async def compare(self, peer: Peer) -> None:
        """With what this member says of the other voters, and send away those that it knows as somebody else."""
        voters = self._voters()
        if peer not in voters or not self._is_alive(peer):
            return
        ours = {voter.node: voter for voter in voters if voter is not peer}
        for claim in await self._ask(peer, {node: known.words.life for node, known in ours.items()}):
            known = ours[claim.node]
            if claim.is_let_in and (why := await self._verdict(known, [claim])) is not None:
                self._member.peers.send_away(known, why)

    async def _verdict(self, peer: Peer, claims: list[Claim]) -> PeerRefused | None:
        """On ``peer``, whose node is somebody else to others."""
        if not claims or not peer.is_open:
            return None
        if not await peer.answers(PROBE_S):  # it is the other one that lives: it was started again, say
            peer.abandon(refused(Code.SILENT, f"node {peer.node} is connected elsewhere, and silent here"))
            return None
        self._member.twins.remember(peer.node, peer.address)
        is_let_in = self._member.vetting.listens_to(peer)
        if not is_let_in and any(claim.is_let_in for claim in claims):
            return refused(Code.COPY, f"another host is alive that is node {peer.node}, too, and others speak with it")
        return refused(Code.CONTENDED, f"two hosts come as node {peer.node}, each to another member")

    def _voters(self) -> list[Peer]:
        """That are connected; nobody, where this host has no vote: it is those who have one that must not be misled."""
        member = self._member
        numbers = member.consensus.configuration.all_voters
        if member.number not in numbers:
            return []
        nodes = (member.node_of(number) for number in numbers)
        return [peer for node in nodes if node is not None and (peer := member.peers.connected.get(node)) is not None]

    def _is_alive(self, peer: Peer) -> bool:
        """And not only suspected not to be: then it would be waited for in vain."""
        known = self._member.consensus.facts.of_node(peer.node)
        return known is not None and self._member.health.state_of(known.number) == "alive"

    async def _ask_all(self, node: str, life: int) -> list[Claim]:
        questions = [
            self._ask(voter, {node: life}) for voter in self._voters() if voter.node != node and self._is_alive(voter)
        ]
        return [claim for claims in await asyncio.gather(*questions) for claim in claims]

    async def _ask(self, peer: Peer, lives: Mapping[str, int]) -> list[Claim]:
        """What this member says of these nodes, as far as it is proven."""
        if not lives:
            return []
        nonce = os.urandom(NONCE_BYTES)
        try:
            said = await self._member.requests.ask(peer, LIVES, {"lives": lives, "nonce": nonce}, ASKED_S)
            others = msgspec.convert(said, Answer).others
        except (AbiError, msgspec.ValidationError) as error:
            log.info("node %s did not say whom it is connected with: %s", peer.node, error)
            return []
        claims = {each.node: each for each in others if each.life != lives.get(each.node, each.life)}
        return await asyncio.to_thread(self._proven, claims.values(), nonce) if claims else []

    def _proven(self, claims: Iterable[Claim], nonce: bytes) -> list[Claim]:
        """Those where a host with the node's key signed the nonce. In a thread."""
        own = self._member.credentials

        def is_proven(claim: Claim, authority: x509.Certificate) -> bool:
            certificate = certificates.load_certificate(claim.certificate)
            subject = Subject(claim.node, own.subject.cluster, own.subject.incarnation)
            statement = _statement(nonce, claim.life)
            return certificates.is_good(certificate, authority, subject, time.time()) and certificates.proof_holds(
                certificate, statement, claim.proof, certificates.ALIVE
            )

        try:
            authority = certificates.load_certificate(own.authority_certificate)
            return [claim for claim in claims if is_proven(claim, authority)]
        except Exception as error:  # a parser in another language, fed by one who may lie: it raises what it likes
            log.warning("a proof that another host is alive is not readable: %s", error)
            return []

    # As one who is asked.

    async def on_lives(self, peer: Peer, body: Body) -> Body:
        question = _converted(body, Question)
        found = await asyncio.gather(
            *(self._claim(node, life, question.nonce) for node, life in question.lives.items())
        )
        return {"others": [claim for claim in found if claim is not None]}

    async def _claim(self, node: str, life: int, nonce: bytes) -> Mapping[str, object] | None:
        member = self._member
        known = member.peers.connected.get(node)
        if known is None or known.words.life == life:
            return None
        try:
            said = msgspec.convert(await member.requests.ask(known, ALIVE, {"nonce": nonce}, PROBE_S), Proof)
        except (AbiError, msgspec.ValidationError) as error:
            log.info("node %s is said to be in another life, and does not answer here: %s", node, error)
            return None
        is_let_in = member.vetting.listens_to(known)
        return msgspec.structs.asdict(Claim(said.certificate, said.proof, node, known.words.life, is_let_in))

    async def on_alive(self, peer: Peer, body: Body) -> Body:
        statement = _statement(_converted(body, Challenge).nonce, self._member.peers.life)
        return await asyncio.to_thread(_proof, self._member.credentials, statement)


def _proof(own: credentials.Credentials, statement: bytes) -> Body:
    certificate, key = credentials.member_pair(own.folder)
    return {"certificate": certificate, "proof": certificates.prove(key, statement, certificates.ALIVE)}


def _converted(body: Body, kind: type[Asked]) -> Asked:
    """Raises ValueError, with a sentence."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _statement(nonce: bytes, life: int) -> bytes:
    return nonce + life.to_bytes(8, "big")
