"""A host that has a token, and nothing else, becomes a member; and nobody but a member hears the secret."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from abi.errors import AbiError, NodeUnreachable, Timeout
from abi.wire.join_token import JoinToken
from abi.wire.peers import STRANGER_BYTES_MAX, Admitted, AuthorityAnswer, Join, PeerKind, Renew, Renewed
from abid.cluster import credentials as stored
from abid.cluster import joining, tls, token
from abid.cluster.authority import CERTIFICATE_S, Ended
from abid.cluster.certificates import Subject, fingerprint
from abid.cluster.credentials import Credentials
from abid.cluster.door import Stranger
from abid.cluster.link import Link
from abid.cluster.refusal import Code, PeerRefused
from tests.daemon.cluster.hosts import CLUSTER, LOCALHOST, WAIT_S, Ca, Host, Wire, hosts, run

A, NEW = "0000000a", "0000000f"


class Admitting:
    """What a member does with a token: here it knows one, and its uses."""

    def __init__(self, ca: Ca, host: Host, uses: int = 1) -> None:
        self.token = token.draw(fingerprint(ca.authority.certificate), CLUSTER, [host.address])
        self.uses = uses
        self.joins: list[Join] = []
        self._ca = ca
        host.on_ask = self._on_ask

    def _on_ask(self, stranger: Stranger, message: Join | Renew) -> None:
        assert isinstance(message, Join)
        self.joins.append(message)
        if message.token != self.token.identity or token.digest(message.secret) != token.digest(self.token.secret):
            stranger.refuse(AbiError("the cluster does not know this token", code="wrong_token"))
        elif self.uses == 0:
            stranger.refuse(AbiError("this token is used up", code="used_token"))
        else:
            self.uses -= 1
            subject = Subject(message.node, CLUSTER, 1)
            certificate = self._ca.authority.sign(message.request, subject, time.time())
            members = (("10.0.0.1:8081", "[fd00::1]:8081"),) * 10_000
            stranger.answer(PeerKind.ADMITTED, Admitted(certificate, self._ca.secret, 1, 2, members))


async def join(folder: Path, given: JoinToken, node: str = NEW, timeout_s: float = WAIT_S) -> Credentials:
    """As a daemon does it."""
    key, request = stored.next_request(folder, joining.subject_for(given, node))
    authority, admitted = await joining.join(given, node, 1, "new", request, ["h:1"], timeout_s)
    return stored.store_member(folder, authority, admitted.certificate, key, admitted.secret)


def test_a_host_joins_and_is_a_member(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            admitting = Admitting(ca, a)
            credentials = await join(tmp_path / "new", admitting.token)
            assert credentials.subject == Subject(NEW, CLUSTER, 1)
            assert credentials.secret == ca.secret
            assert (admitting.joins[0].node, admitting.joins[0].addresses) == (NEW, ("h:1",))
            async with hosts(credentials) as (new,):
                assert (await new.peers.dial([a.address], WAIT_S)).node == A
                await a.until_told("connected", NEW)

    run(story())


def test_a_token_that_the_cluster_refuses(tmp_path: Path) -> None:
    """Its word comes through, another member is not asked the same, and the host is no member of anything."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member("0000000b")) as (a, b):
            admitting = Admitting(ca, a)
            wrong = admitting.token._replace(secret=bytes(16), addresses=(a.address, b.address))
            with pytest.raises(PeerRefused, match="does not know this token") as caught:
                await join(tmp_path / "new", wrong)
            assert caught.value.code == "wrong_token"
            assert b.told == []
            await join(tmp_path / "new", admitting.token)
            with pytest.raises(PeerRefused, match="used up") as caught:
                await join(tmp_path / "second", admitting.token)
            assert caught.value.code == "used_token"
            assert stored.load(tmp_path / "second") is None

    run(story())


def test_addresses_are_tried_until_a_member_answers(tmp_path: Path) -> None:
    async def story() -> None:
        ca, other = Ca(tmp_path), Ca(tmp_path / "other")
        async with hosts(ca.member(A), other.member(A)) as (a, foreign):
            admitting = Admitting(ca, a)
            addresses = ("127.0.0.1:1", foreign.address, a.address)
            assert (await join(tmp_path / "new", admitting.token._replace(addresses=addresses))).subject.node == NEW
            assert foreign.told == []

    run(story())


class Impostor(Wire):
    """Answers ASK_AUTHORITY with a certificate, under a certificate of its own, and hears everything."""

    def __init__(self, context: Any, answer: bytes) -> None:
        super().__init__()
        self.heard: list[tuple[int, bytes]] = []
        self._context, self._answer = context, answer

    async def open(self) -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Link(loop, self, self._context, accepted=True), LOCALHOST, 0)
        return f"{LOCALHOST}:{server.sockets[0].getsockname()[1]}"

    def on_secured(self, link: Link) -> None:
        link.set_limit(1 << 20)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        self.heard.append((kind, bytes(payload)))
        link.send(PeerKind.AUTHORITY, AuthorityAnswer(self._answer))

    def on_ended(self, link: Link, why: Any) -> None:
        """Two links come, one after the other."""


@pytest.mark.parametrize("whose", ["its own", "the real one"])
def test_an_impostor_never_hears_the_secret(tmp_path: Path, whose: str) -> None:
    """It may show its own authority's certificate, which the token does not name, or ours, whose key it lacks."""

    async def story() -> None:
        ca, forged = Ca(tmp_path), Ca(tmp_path / "forged")
        shown = forged if whose == "its own" else ca
        impostor = Impostor(tls.accepting(forged.member(A)), shown.authority.certificate)
        given = token.draw(fingerprint(ca.authority.certificate), CLUSTER, [await impostor.open()])
        with pytest.raises(PeerRefused) as caught:
            await join(tmp_path / "new", given)
        assert caught.value.code == Code.WRONG_CA
        assert [kind for kind, _ in impostor.heard] == [PeerKind.ASK_AUTHORITY]
        assert impostor.heard[0][1] == b"\x90"  # an empty array: nothing of ours was said

    run(story())


def test_an_impostor_cannot_make_us_read_much(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        impostor = Impostor(tls.accepting(ca.member(A)), bytes(STRANGER_BYTES_MAX))
        given = token.draw(fingerprint(bytes(STRANGER_BYTES_MAX)), CLUSTER, [await impostor.open()])
        with pytest.raises(PeerRefused) as caught:
            await join(tmp_path / "new", given)
        assert caught.value.code == Code.OVERSIZED

    run(story())


def test_an_answer_that_is_no_certificate_ends_the_attempt(tmp_path: Path) -> None:
    """The fingerprint fits, so whoever made the token made a bad one; nothing breaks."""

    async def story() -> None:
        ca = Ca(tmp_path)
        impostor = Impostor(tls.accepting(ca.member(A)), b"no certificate")
        given = token.draw(fingerprint(b"no certificate"), CLUSTER, [await impostor.open()])
        with pytest.raises(PeerRefused) as caught:
            await join(tmp_path / "new", given)
        assert caught.value.code == Code.WRONG_CA
        assert [kind for kind, _ in impostor.heard] == [PeerKind.ASK_AUTHORITY]

    run(story())


def test_a_member_of_another_cluster_with_the_same_authority_does_not_hear_the_secret(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            given = token.draw(fingerprint(ca.authority.certificate), "f" * 16, [a.address])
            with pytest.raises(PeerRefused) as caught:
                await join(tmp_path / "new", given)
            assert caught.value.code == Code.OTHER_CLUSTER
            assert a.told == []

    run(story())


def test_nobody_there_and_nobody_who_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            given = token.draw(fingerprint(ca.authority.certificate), CLUSTER, [f"{LOCALHOST}:1"])
            with pytest.raises(NodeUnreachable, match=r"127\.0\.0\.1:1"):
                await join(tmp_path / "new", given)
            # The owner of a never answers: it may have decided, so this is no ordinary failure.
            context = tls.newcomer(ca.authority.certificate)
            loop = asyncio.get_running_loop()
            question = joining.Question(loop, CLUSTER, PeerKind.RENEW, Renew(b""), PeerKind.RENEWED)
            with pytest.raises(Timeout, match=r"did not answer within 0\.1 s"):
                await joining.ask([a.address], WAIT_S, context, question, 0.1)
            await a.until(lambda: a.told)
            assert a.told == [("stranger", Renew(b""))]

    run(story())


# A certificate that ran out.


class Ledger:
    def __init__(self) -> None:
        self.renewed: dict[str, bytes] = {}

    def is_revoked(self, node: str) -> bool:
        return False

    def renewed_for(self, serial: str) -> bytes | None:
        return self.renewed.get(serial)


def test_a_host_that_slept_too_long_renews_and_is_a_member_again(tmp_path: Path) -> None:
    """The first answer is lost, after the cluster has noted the renewal."""

    async def story() -> None:
        ca, ledger = Ca(tmp_path), Ledger()
        sleeper = ca.member(NEW, now=time.time() - CERTIFICATE_S - 60)
        answers: list[bool] = [False, True]

        def on_ask(stranger: Stranger, message: Join | Renew) -> None:
            assert isinstance(message, Renew)
            ended = Ended(message.certificate, message.request, message.proof)
            renewal = ca.authority.renew_ended(ended, 1, time.time(), ledger)
            ledger.renewed[renewal.serial] = renewal.key
            if answers.pop(0):
                stranger.answer(PeerKind.RENEWED, Renewed(renewal.certificate))
            else:
                stranger._link.abort(AbiError("the cable was cut"))

        async with hosts(ca.member(A), sleeper) as (a, asleep):
            a.on_ask = on_ask
            with pytest.raises(PeerRefused) as caught:
                await asleep.peers.dial([a.address], WAIT_S)
            assert caught.value.code == Code.EXPIRED
            with pytest.raises(PeerRefused):
                await joining.renew_ended(sleeper, [a.address], WAIT_S)
            assert len(ledger.renewed) == 1
            renewed = await joining.renew_ended(sleeper, [a.address], WAIT_S)
            assert renewed.not_after > time.time()
            assert stored.load(sleeper.folder) == renewed
            asleep.peers.use(renewed)
            assert (await asleep.peers.dial([a.address], WAIT_S)).node == A

    run(story())
