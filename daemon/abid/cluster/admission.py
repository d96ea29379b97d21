"""Who may become a member, and who gets a certificate: what a host without one asks, answered by the leader.

Any member can be asked, and passes it on to the leader. The leader has the cluster agree on the admission first and
signs then: a certificate that nobody knows of must not be. An admission whose certificate was lost on its way is asked
for again, of another member perhaps, and is the same one as long as token and key are the same (``ticket``).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from abi.errors import AbiError
from abi.wire.peers import Admitted, Join, PeerKind, Renew, Renewed
from abid.cluster import advice, credentials
from abid.cluster.asking import NoLeader, Question
from abid.cluster.authority import Authority, Ended
from abid.cluster.breakers import FAILURES
from abid.cluster.certificates import CertificateError, Subject, key_digest, key_of_request
from abid.cluster.consensus import NotLeader, Superseded
from abid.cluster.door import Stranger
from abid.cluster.peer import Peer
from abid.cluster.peers import PROBE_S
from abid.cluster.refusal import Code, PeerRefused, refused
from abid.cluster.requests import BUSY, Body, PeerSaidNo
from abid.cluster.strangers import STRANGERS_MAX
from abid.cluster.token import digest
from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import STALE, Result

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

T = TypeVar("T")
JOIN, RENEW, RENEW_OWN = "join", "renew", "renew-own"
LEADER_S: Final = 25.0
"""For whoever leads to be found and to answer a stranger: less than that is given time for (``door.ANSWER_S``), so that
it hears why, and less than it waits itself, so that it can ask another member."""
ADMISSIONS_MAX: Final = STRANGERS_MAX
"""Under way at once. Each looks for a leader all that time, also when whoever asked has gone and has left its place to
the next."""


class Denied(AbiError):
    """The cluster says no; ``code`` says why."""

    code = "denied"


class Admission:
    """One member's part in it: it asks the leader, or is the leader."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._under_way = 0

    # A stranger asks.

    async def on_stranger(self, stranger: Stranger, message: Join | Renew) -> None:
        """Answer it, or say why not."""
        if self._under_way >= ADMISSIONS_MAX:
            stranger.refuse(refused(Code.BUSY, f"{ADMISSIONS_MAX} hosts wait for an answer of the cluster"))
            return
        self._under_way += 1
        try:
            await self._answer(stranger, message)
        finally:
            self._under_way -= 1

    async def _answer(self, stranger: Stranger, message: Join | Renew) -> None:
        try:
            if isinstance(message, Join):
                admitted = await self._ask(JOIN, message, lambda: self.admit(message), Admitted)
                log.info("node %s (%s) joined as member %d", message.node, message.name, admitted.number)
                stranger.answer(PeerKind.ADMITTED, admitted)
            else:
                renewed = await self._ask(RENEW, message, lambda: self.renew(message), Renewed)
                stranger.answer(PeerKind.RENEWED, renewed)
        except AbiError as error:
            log.info("%s asked in vain: %s", stranger.address, error.message)
            stranger.refuse(error)
        except Exception:  # a disk that fails, say; nobody is left waiting for an answer that does not come
            log.exception("%s could not be answered", stranger.address)
            stranger.refuse(AbiError("the member that was asked could not answer; its log says why"))

    async def _ask(self, verb: str, message: Join | Renew, here: Callable[[], Awaitable[T]], answer: type[T]) -> T:
        """Raises AbiError: what whoever leads decided, or UNAVAILABLE where nobody did in time."""

        async def as_leader() -> T:
            try:
                return await here()
            except PeerRefused as error:  # it is the stranger that is refused, not we by another member
                raise Denied(error.message, code=error.code, hint=error.hint) from None

        body = {"message": msgspec.msgpack.encode(message)}
        try:
            return await self._member.asking.ask(
                Question(verb, body, lambda said: msgspec.msgpack.decode(said["message"], type=answer), as_leader),
                LEADER_S,
            )
        except PeerSaidNo as error:
            if error.code in (NoLeader.code, BUSY):
                raise refused(Code.UNAVAILABLE, error.message) from None
            raise Denied(error.message, code=error.code, hint=error.hint) from None
        except (NoLeader, *FAILURES) as error:
            raise refused(Code.UNAVAILABLE, error.message) from None

    # As the leader.

    async def on_join(self, peer: Peer, body: Body) -> Body:
        return {"message": msgspec.msgpack.encode(await self.admit(_read(body, Join)))}

    async def on_renew(self, peer: Peer, body: Body) -> Body:
        return {"message": msgspec.msgpack.encode(await self.renew(_read(body, Renew)))}

    async def on_renew_own(self, peer: Peer, body: Body) -> Body:
        """A member asks for itself, over its own connection, while its certificate is good."""
        await self._member.asking.check(peer.node)
        return {"certificate": self.certify(peer.node, body["request"])}

    def certify(self, node: str, request: bytes) -> bytes:
        """As the leader, for a member whose certificate is good. Raises AbiError."""
        if self._member.consensus.facts.of_node(node) is None:
            raise Denied(f"node {node} is no member of this cluster any more")
        return self._authority().sign(request, self._subject(node), time.time())

    async def admit(self, message: Join) -> Admitted:
        """Raises Denied, PeerRefused, CertificateError; NotLeader, Superseded or NoLeader where nobody decided."""
        member = self._member
        authority = self._authority()
        facts = member.consensus.facts
        if message.cluster != facts.cluster:
            raise refused(Code.OTHER_CLUSTER, f"this is cluster {facts.cluster}")
        await self._check_token(message)
        await self._check_that_it_is_no_copy(message.node)
        ticket = _ticket(message)  # else a key that is none is found out when it is a member that can never show one
        result = await self._command(
            commands.AdmitOnce, token=message.token, digest=digest(message.secret), node=message.node,
            name=message.name, addresses=message.addresses, ticket=ticket,
        )  # fmt: skip
        if result.value in member.consensus.configuration.all_voters:  # it had its answer once, and has lost its log
            result = await self._command(commands.Readmit, number=result.value)
        assert isinstance(result.value, int)
        facts = member.consensus.facts
        certificate = authority.sign(message.request, self._subject(message.node), time.time())
        others = tuple(other.addresses for other in facts.members.values() if other.addresses)
        return Admitted(certificate, member.credentials.secret, facts.incarnation, result.value, others)

    async def _check_token(self, message: Join) -> None:
        """Who has no good token is refused before anything is written: else whoever reaches the port could fill the
        log of every voter, and wear out its disk. What is admitted is decided by the log all the same."""
        member = self._member
        await member.asking.refresh()  # or whoever leads now is asked instead
        facts, words = member.consensus.facts, (message.token, digest(message.secret), int(time.time() * 1000))
        why = facts.why_not_admit(message.node, *words)
        if why is not None and facts.of_node(message.node) is not None:  # only then is a key worth looking at
            with contextlib.suppress(CertificateError):
                why = facts.why_not_admit(message.node, *words, _ticket(message))
        if why is not None:
            raise _denied(why)

    async def _check_that_it_is_no_copy(self, node: str) -> None:
        """A host whose disk was copied has the identity of another one. If that one lives, this one is the copy."""
        member = self._member
        if node == member.node:
            raise refused(Code.COPY, f"node {node} is the leader itself, and is alive")
        known = member.consensus.facts.of_node(node)
        if known is None:
            return
        peer = member.peers.connected.get(node)
        is_here = peer is not None and await peer.answers(PROBE_S)
        if is_here or await member.elsewhere.is_alive(node):
            raise refused(Code.COPY, f"node {node} ({known.name}) is a member already, and is alive")

    async def renew(self, message: Renew) -> Renewed:
        """For a host that slept through the end of its certificate. Raises CertificateError and Denied."""
        member = self._member
        facts = member.consensus.facts
        ended = Ended(message.certificate, message.request, message.proof)
        renewal = self._authority().renew_ended(ended, facts.incarnation, time.time(), facts)
        if facts.of_node(renewal.subject.node) is None:
            raise refused(Code.REVOKED, f"node {renewal.subject.node} is no member of this cluster any more")
        await self._command(commands.NoteRenewal, serial_number=renewal.serial, key=renewal.key)
        return Renewed(renewal.certificate)

    async def _command(self, kind: Callable[..., AnyCommand], **words: Any) -> Result:
        """Raises Denied for what was refused, Superseded where it may be asked again, and NoLeader."""
        try:
            result = await self._member.asking.command(kind, **words)
        except FAILURES as error:  # we led when we were asked, and do not reach who leads now; who asks us may
            raise Superseded(error.message) from None
        if result.refused == STALE:
            raise Superseded(result.told)
        if result.refused:
            raise _denied(result)
        return result

    def _subject(self, node: str) -> Subject:
        facts = self._member.consensus.facts
        return Subject(node, facts.cluster, facts.incarnation)

    def _authority(self) -> Authority:
        """Raises NotLeader, and Denied where we cannot sign."""
        member = self._member
        if not member.consensus.is_leader:
            raise NotLeader(member.consensus.leader)
        if member.authority is None:
            member.authority = credentials.load_authority(member.folder)
        if member.authority is None:
            raise Denied("the leader does not hold the authority's key", hint="see its log; was its disk restored?")
        return member.authority


def _ticket(message: Join) -> bytes:
    """Of the token's secret and the host's own key: nobody else can sign a request by that. Raises CertificateError."""
    return hashlib.sha256(b"abi ticket\0" + key_digest(key_of_request(message.request)) + message.secret).digest()


def _denied(why: Result) -> Denied:
    return Denied(why.told, code=why.refused, hint=advice.OF_ADMISSION.get(why.refused, ""))


def _read(body: Body, kind: type[T]) -> T:
    return msgspec.msgpack.decode(body["message"], type=kind)
