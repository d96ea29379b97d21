"""A host knocks until it is let in: members that are lost meanwhile, that know of no leader, and its own sudden end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from abi import exits
from abi.errors import AbiError, NodeUnreachable
from abi.wire.join_token import JoinToken
from abi.wire.peers import Admitted, AskAuthority, Join, PeerKind, Renew
from abid.cluster import aside, joining, knocking, tls, token
from abid.cluster import credentials as stored
from abid.cluster.certificates import Subject, fingerprint, key_digest, key_of_request
from abid.cluster.door import Stranger
from abid.cluster.knocking import LetIn, Newcomer, NotLetIn, knock
from abid.cluster.link import Link
from abid.cluster.refusal import Code, PeerRefused, refused
from abid.cluster.strangers import Strangers
from tests.daemon.cluster.hosts import CLUSTER, LOCALHOST, WAIT_S, Ca, Host, hosts, run
from tests.daemon.cluster.test_strangers import Scene

A, B, NEW = "0000000a", "0000000b", "0000000f"
Answer = Callable[[Stranger, Join], None]


class Members:
    """What those that are asked do, in turn; ``keys`` are those that were shown."""

    def __init__(self, ca: Ca, *members: Host) -> None:
        self.token = token.draw(fingerprint(ca.authority.certificate), CLUSTER, [host.address for host in members])
        self.answers: list[Answer] = []
        self.keys: list[bytes] = []
        self._ca = ca
        for host in members:
            host.on_ask = self._on_ask

    def _on_ask(self, stranger: Stranger, message: Join | Renew) -> None:
        assert isinstance(message, Join)
        self.keys.append(key_digest(key_of_request(message.request)))
        (self.answers.pop(0) if self.answers else self.let_in)(stranger, message)

    def let_in(self, stranger: Stranger, message: Join) -> None:
        certificate = self._ca.authority.sign(message.request, Subject(message.node, CLUSTER, 1), time.time())
        stranger.answer(PeerKind.ADMITTED, Admitted(certificate, self._ca.secret, 1, 2))


def cut(stranger: Stranger, message: Join) -> None:
    stranger._link.abort(AbiError("killed"))


def close(stranger: Stranger, message: Join) -> None:
    stranger._link.close()


def nobody_leads(stranger: Stranger, message: Join) -> None:
    stranger.refuse(refused(Code.UNAVAILABLE, "no host leads the cluster just now"))


def wrong(stranger: Stranger, message: Join) -> None:
    stranger.refuse(AbiError("used up", code="wrong_token"))


def refuses(code: str) -> Answer:
    return lambda stranger, message: stranger.refuse(AbiError("no", code=code))


def silent(stranger: Stranger, message: Join) -> None: ...


async def knocks(folder: Path, given: JoinToken, node: str = NEW, limit_s: float = WAIT_S) -> LetIn:
    return await knock(folder, given, Newcomer(node, 1, "new", ("h:1",)), WAIT_S, limit_s)


@pytest.mark.parametrize("lost", [cut, close, nobody_leads])
@pytest.mark.parametrize("count", [1, 2])
def test_who_is_lost_or_knows_of_no_leader_is_asked_again_and_so_is_the_next(
    tmp_path: Path, lost: Answer, count: int
) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as both:
            members = Members(ca, *both[:count])
            members.answers = [lost] * 3
            let_in = await knocks(tmp_path / "new", members.token)
            assert let_in.admitted.number == 2
            assert (len(members.keys), len(set(members.keys))) == (4, 1)
            stored.store_member(tmp_path / "new", let_in.authority, let_in.admitted.certificate, let_in.key, ca.secret)
            assert not (tmp_path / "new" / stored.JOIN_KEY).exists()

    run(story())


def test_a_host_that_is_killed_while_it_joins_asks_again_by_the_same_key(tmp_path: Path) -> None:
    """And by another one where the token is another, or its identity is: a copy of its disk is another host then."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            members, folder = Members(ca, a), tmp_path / "new"
            members.answers = [silent] * 4
            other = members.token._replace(identity="ffffffff")
            for given, node in ((members.token, NEW), (members.token, NEW), (members.token, B), (other, NEW)):
                dies = asyncio.ensure_future(knocks(folder, given, node))
                asked = len(members.keys)
                await a.until(lambda asked=asked: len(members.keys) > asked)  # type: ignore[misc]
                dies.cancel()
                await asyncio.wait([dies])
            assert (folder / stored.JOIN_KEY).stat().st_mode & 0o777 == 0o600
            first, second, third, fourth = members.keys
            assert first == second
            assert len({first, third, fourth}) == 3

    run(story())


def test_a_key_that_cannot_be_read_is_no_reason_to_stay_outside(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            members = Members(ca, a)
            members.answers = [silent]
            with pytest.raises(NotLetIn):
                await knocks(tmp_path, members.token, limit_s=0.2)
            file = tmp_path / stored.JOIN_KEY
            file.write_bytes(file.read_bytes()[:-100])
            assert (await knocks(tmp_path, members.token)).admitted.number == 2

    run(story())


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([silent], "did not answer within"),
        ([nobody_leads] * 99, "no host leads the cluster just now"),
        ([cut] * 99, "it did not answer"),
    ],
    ids=["silent", "nobody leads", "lost"],
)
def test_time_that_is_over_is_told_with_what_was_met_and_what_to_do(
    tmp_path: Path, answers: list[Answer], words: str
) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            members, began = Members(ca, a), asyncio.get_running_loop().time()
            members.answers = answers
            with pytest.raises(NotLetIn, match=r"no member has let this host in within 0\.5 s") as caught:
                await knocks(tmp_path / "new", members.token, limit_s=0.5)
            assert asyncio.get_running_loop().time() - began >= 0.5
            assert words in caught.value.message
            assert (caught.value.code, exits.of_error(caught.value)) == ("unavailable", exits.UNREACHABLE)
            assert "with the same token" in caught.value.hint
            assert (tmp_path / "new" / stored.JOIN_KEY).exists(), "it may be a member: the next one asks by this key"

    run(story())


def test_what_is_decided_is_told_at_once_and_leaves_no_key(tmp_path: Path) -> None:
    """Nor does a place where nobody is; but the key of an attempt before stays."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            members, folder = Members(ca, a), tmp_path / "new"
            members.answers = [wrong]
            with pytest.raises(PeerRefused, match="used up") as caught:
                await knocks(folder, members.token)
            assert caught.value.code == "wrong_token"
            with pytest.raises(NodeUnreachable):
                await knocks(folder, members.token._replace(addresses=(f"{LOCALHOST}:1",)))
            assert list(folder.iterdir()) == []
            members.answers = [silent]
            with pytest.raises(NotLetIn):
                await knocks(folder, members.token, limit_s=0.2)
            with pytest.raises(NodeUnreachable):
                await knocks(folder, members.token._replace(addresses=(f"{LOCALHOST}:1",)))
            await knocks(folder, members.token)
            assert members.keys[-1] == members.keys[-2]

    run(story())


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        *[([refuses(code)], False) for code in (Code.WRONG_TOKEN, Code.EXPIRED_TOKEN, Code.FULL, Code.REVOKED)],
        *[([refuses(code)], True) for code in (Code.COPY, Code.INTERNAL, Code.DENIED, Code.PROTOCOL, "newer")],
        *[([before, wrong], True) for before in (cut, close, nobody_leads)],
    ],
)
def test_the_key_goes_only_where_nobody_can_have_let_us_in(tmp_path: Path, answers: list[Answer], kept: bool) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            members = Members(ca, a)
            members.answers = list(answers)
            with pytest.raises(PeerRefused):
                await knocks(tmp_path / "new", members.token)
            assert len(members.keys) == len(answers)
            assert (tmp_path / "new" / stored.JOIN_KEY).exists() is kept

    run(story())


def test_a_key_that_a_join_left_is_nothing_to_a_renewal_and_goes_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        own = ca.member(NEW)
        async with hosts(ca.member(A)) as (a,):
            members = Members(ca, a)
            members.answers = [silent] * 3
            with pytest.raises(NotLetIn):
                await knocks(own.folder, members.token, limit_s=0.2)
            key, request = stored.next_request(own.folder, own.subject)
            certificate = ca.authority.sign(request, own.subject, time.time())
            stored.store_member(own.folder, ca.authority.certificate, certificate, key, ca.secret)
            assert stored.member_pair(own.folder) == (certificate, key)
            assert not (own.folder / stored.JOIN_KEY).exists()
            for end in (lambda: stored.forget(own.folder), lambda: aside.stand(own.folder, refused(Code.REVOKED, ""))):
                with pytest.raises(NotLetIn):
                    await knocks(own.folder, members.token, limit_s=0.2)
                assert (own.folder / stored.JOIN_KEY).exists()
                end()
                assert not (own.folder / stored.JOIN_KEY).exists()

    run(story())


def test_all_members_together_have_the_time_of_one_request(tmp_path: Path) -> None:
    """Each of two knows of no leader after a while; the second one's time is what the first has left."""

    async def story() -> None:
        ca, loop = Ca(tmp_path), asyncio.get_running_loop()

        def after_a_while(stranger: Stranger, message: Join) -> None:
            loop.call_later(0.4, nobody_leads, stranger, message)

        async with hosts(ca.member(A), ca.member(B)) as both:
            members = Members(ca, *both)
            members.answers = [after_a_while] * 2
            with pytest.raises(NotLetIn, match=r"did not answer within|when no time was left"):
                await knocks(tmp_path / "new", members.token, limit_s=0.6)

    run(story())


def test_a_link_that_is_won_when_nobody_waits_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Won:
        is_closed = False

        def send(self, kind: object, message: object) -> None: ...

        def close(self) -> None:
            self.is_closed = True

    class Race:
        def __init__(self, loop: object, context: object, question: joining.Question) -> None:
            self.question = question

        async def run(self, places: object) -> None:
            self.question.on_secured(cast("Link", link))
            await asyncio.Event().wait()

    link = Won()
    monkeypatch.setattr(joining, "Race", Race)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        question = joining.Question(loop, None, PeerKind.ASK_AUTHORITY, AskAuthority(), PeerKind.AUTHORITY)
        asks = asyncio.ensure_future(joining.ask([], WAIT_S, tls.unverified(), question))
        await asyncio.sleep(0)
        asks.cancel()
        await asyncio.wait([asks])
        assert link.is_closed

    run(story())


def test_who_leads_being_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """It was asked and ended, and its port is closed until it is there again: nobody else is known."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            members = Members(ca, a)
            port = int(a.address.rpartition(":")[2])

            def end(stranger: Stranger, message: Join) -> None:
                a.peers.close()
                cut(stranger, message)

            members.answers = [end]
            asks = asyncio.ensure_future(knocks(tmp_path / "new", members.token))
            await a.until(lambda: members.keys)
            again = Host(ca.member(A, name="again"))
            again.on_ask = a.on_ask
            await again.peers.listen([LOCALHOST], port)
            assert (await asks).admitted.number == 2
            again.peers.close()

    run(story())


def test_a_member_that_finds_no_answer_does_not_say_that_the_stranger_was_silent() -> None:
    scene = Scene()
    told: list[AbiError] = []
    asked, mute = scene.knock("10.0.0.1"), scene.knock("10.0.0.2")
    for knock_ in (asked, mute):
        knock_.refuse = told.append  # type: ignore[method-assign]
    strangers: Strangers = scene.strangers
    strangers.give_time(cast("Link", asked), 30.0)
    scene.clock.go_to(60.0)
    assert [(one.code, one.message) for one in told] == [
        (Code.SILENT, "it did not say who it is within 5 s"),
        (Code.UNAVAILABLE, "the member that was asked found no answer within 30 s"),
    ]
    assert "have to be up" in told[1].hint
    assert "same token" in knocking.HINT
