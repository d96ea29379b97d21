"""What a host does that is no member, or whose certificate has run out: one question over one link.

To join takes two links, since the secret must not be said to an impostor:

1. over a link that believes nobody: what is the certificate of your authority? Closed after the answer.
2. the fingerprint of what came is held against the one in the token
3. over a link that believes that authority and no other, so that whoever answers has a certificate of it: the secret

An impostor fails at the second step with a certificate of its own, and at the third with ours, whose key it lacks.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Sequence
from typing import Any, Final

from abi.errors import AbiError, Timeout
from abi.version import __version__
from abi.wire.join_token import JoinToken
from abi.wire.peers import (
    ADDRESSES_MAX,
    PEER_PROTOCOL,
    Admitted,
    AskAuthority,
    AuthorityAnswer,
    Join,
    PeerKind,
    PeerMessage,
    Renew,
    Renewed,
    decode,
)
from abid.cluster import credentials as stored
from abid.cluster import tls
from abid.cluster.certificates import RENEWAL, Subject, fingerprint, prove
from abid.cluster.credentials import Credentials
from abid.cluster.dialling import Race, Runner, unreachable, worst
from abid.cluster.link import Link
from abid.cluster.refusal import Code, PeerRefused, Said, refused, said

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of an answer by a member: ADMITTED names the addresses of all members, of which a cluster has 10,000 at most. Who has
shown no certificate that we believe says no more than a stranger may."""
ANSWER_S: Final = 35.0
"""A little longer than the member gives itself, so that its own words come and not our impatience."""


class Unheard(AbiError):
    """This host was admitted, and knows nothing of its cluster yet. It is a member all the same, and goes on trying."""

    code = "unavailable"

    def __init__(self, number: int, waited_s: float, is_connected: bool, why: AbiError | None) -> None:
        told = "no member was reached" if why is None else why.message
        if is_connected:
            told = "members are connected, and none of them leads"
        super().__init__(
            f"this host was admitted as member {number}, and has not heard of the cluster in {waited_s:g} s: {told}",
            hint="it goes on trying: `abi network status` shows when it is heard; `abi cluster leave --force` gives up",
        )


class Lost(PeerRefused):
    """The connection ended before the answer: it may or may not have had its effect."""

    def __init__(self, why: AbiError | None) -> None:
        told = why.message if why is not None and why.message else "it closed the connection"
        super().__init__(f"{told}, and it did not answer", code=Code.UNAVAILABLE)


PASSING: Final = frozenset({Code.UNAVAILABLE, Code.BUSY, Code.SILENT})
"""What a member says that did not decide."""


def may_pass(error: AbiError) -> bool:
    """Whether another member, or the same a moment later, may answer the same question otherwise."""
    return isinstance(error, Lost) or (isinstance(error, Said) and error.code in PASSING)


class Question(Runner):
    """One message, one answer. ``cluster`` is whose certificate the answering host must show; None: nobody's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cluster: str | None,
        kind: PeerKind,
        message: PeerMessage,
        answer: PeerKind,
    ) -> None:
        self.answer: asyncio.Future[Any] = loop.create_future()
        self._cluster = cluster
        self._kind = kind
        self._message = message
        self._answer_kind = answer
        self._link: Link | None = None

    def judge(self, link: Link) -> None:
        """Raises PeerRefused."""
        if self._cluster is None:
            return
        if link.identity is None or link.identity.subject.cluster != self._cluster:
            raise refused(Code.OTHER_CLUSTER, f"what answers is no member of cluster {self._cluster}")

    @property
    def was_asked(self) -> bool:
        """Whether the message left, so that it may have had its effect."""
        return self._link is not None

    def on_secured(self, link: Link) -> None:
        self._link = link
        if self._cluster is not None:
            link.set_limit(ANSWER_BYTES_MAX)
        link.send(self._kind, self._message)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        message = decode(kind, payload)
        if kind == PeerKind.REFUSED:
            self._fail(said(message))
        elif kind != self._answer_kind:
            why = refused(Code.PROTOCOL, f"{self._kind.name} was answered by a frame of kind {kind}")
            self._fail(why)
            raise why
        elif not self.answer.done():
            self.answer.set_result(message)
        link.close()

    def on_ended(self, link: Link, why: AbiError | None) -> None:
        is_cut = why is None or (isinstance(why, PeerRefused) and why.code == Code.PROTOCOL)
        self._fail(Lost(why) if why is None or is_cut else why)

    def give_up(self) -> None:
        """Nobody waits any more."""
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()
        if self._link is not None:
            self._link.close()

    def _fail(self, why: AbiError) -> None:
        if not self.answer.done():
            self.answer.set_exception(why)


async def ask(
    places: Sequence[str], timeout_s: float, context: ssl.SSLContext, question: Question, answer_s: float = ANSWER_S
) -> Any:
    """The answer of the first place that can be reached within ``timeout_s``. Raises NodeUnreachable, PeerRefused, and
    what the other side refused with; Timeout if that was reached and did not answer."""
    loop = asyncio.get_running_loop()
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await Race(loop, context, question).run(places)
        except TimeoutError:
            raise unreachable(places, timeout_s) from None
        try:
            async with asyncio.timeout(answer_s):
                return await question.answer
        except TimeoutError:
            raise Timeout(f"a member was reached and did not answer within {answer_s:.3g} s") from None
    finally:
        question.give_up()


async def authority_of(place: str, expected: bytes, timeout_s: float) -> bytes:
    """The authority's certificate (DER) of the cluster that answers there, if it is the one with this fingerprint.

    Raises PeerRefused (``wrong_ca``) and NodeUnreachable.
    """
    loop = asyncio.get_running_loop()
    question = Question(loop, None, PeerKind.ASK_AUTHORITY, AskAuthority(), PeerKind.AUTHORITY)
    answer: AuthorityAnswer = await ask([place], timeout_s, tls.unverified(), question, timeout_s)
    if not hmac.compare_digest(fingerprint(answer.certificate), expected):
        raise PeerRefused(
            "what answers is not of the cluster that the token is for; the secret was not said",
            code=Code.WRONG_CA,
            hint="was the token copied from the right cluster? If so, somebody stands between the two hosts",
        )
    return answer.certificate


async def join(
    token: JoinToken,
    node: str,
    started: int,
    name: str,
    request: bytes,
    addresses: Sequence[str],
    timeout_s: float,
    answer_s: float = ANSWER_S,
    asked: list[str] | None = None,
) -> tuple[bytes, Admitted]:
    """The authority's certificate (DER) and what the cluster gave us. ``request``: for our certificate (DER), by the
    same key when it is asked again.

    Each address of the token is tried until a member of the cluster has decided; ``timeout_s`` is for each dial,
    ``answer_s`` for all of it, but that dials take what they take. ``asked``: where the token was said is added to it.
    Raises PeerRefused (``wrong_ca``, or what the member refused with: the token's faults), NodeUnreachable, and Timeout
    for a member that did not answer in all that time.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + answer_s
    message = Join(
        PEER_PROTOCOL, token.cluster, token.identity, token.secret, node, started, __version__, name, request,
        tuple(addresses[:ADDRESSES_MAX]),
    )  # fmt: skip
    failures: dict[str, AbiError] = {}
    for place in token.addresses:
        try:
            authority = await authority_of(place, token.fingerprint, timeout_s)
            context = tls.newcomer(authority)
        except (AbiError, ssl.SSLError) as error:
            failures[place] = error if isinstance(error, AbiError) else refused(Code.WRONG_CA, str(error))
            continue
        left_s = ends - loop.time()
        if left_s <= 0:  # an answer that nobody waits for is not asked for
            raise Timeout(f"the member at {place} was reached when no time was left for its answer")
        question = Question(loop, token.cluster, PeerKind.JOIN, message, PeerKind.ADMITTED)
        try:
            return authority, await ask([place], timeout_s, context, question, left_s)
        except AbiError as error:
            if question.was_asked and asked is not None:
                asked.append(place)
            if question.was_asked and not may_pass(error):
                raise  # a member has decided
            failures[place] = error
    raise worst(failures)


async def renew_ended(credentials: Credentials, places: Sequence[str], timeout_s: float) -> Credentials:
    """A new certificate in place of ours, which ran out while this host slept; stored.

    The key of the request is on disk before the request leaves: if the answer is lost, the same is asked again, and
    it still counts as the one renewal. Raises PeerRefused, NodeUnreachable, CertificateError, OSError.
    """
    loop, folder = asyncio.get_running_loop(), credentials.folder
    key, request = await asyncio.to_thread(stored.next_request, folder, credentials.subject)
    old_certificate, old_key = stored.member_pair(folder)
    message = Renew(request, old_certificate, prove(old_key, request, RENEWAL))
    authority = credentials.authority_certificate
    question = Question(loop, credentials.subject.cluster, PeerKind.RENEW, message, PeerKind.RENEWED)
    answer: Renewed = await ask(places, timeout_s, tls.newcomer(authority), question)
    return await asyncio.to_thread(stored.store_member, folder, authority, answer.certificate, key, credentials.secret)


def subject_for(token: JoinToken, node: str) -> Subject:
    """For the request of a host that joins: which incarnation the cluster is in, it learns only then."""
    return Subject(node, token.cluster, 0)
