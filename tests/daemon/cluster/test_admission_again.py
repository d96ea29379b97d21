"""A host asks to be let in while nobody leads, or asks again since the answer was lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from abi import exits
from abi.errors import AbiError, NodeUnreachable, Timeout
from abi.wire.peers import Admitted
from abid.cluster.admission import JOIN, LEADER_S, Admission
from abid.cluster.asking import NoLeader
from abid.cluster.certificates import new_key_and_request, request_for
from abid.cluster.consensus import Superseded
from abid.cluster.door import ANSWER_S, Stranger
from abid.cluster.member import Member
from abid.cluster.refusal import Code, PeerRefused
from abid.cluster.requests import Body, PeerSaidNo
from abid.core.cluster import commands
from abid.core.cluster.facts import STALE, Result
from tests.daemon.cluster import hosts, test_asking
from tests.daemon.cluster.hosts import Ca
from tests.daemon.cluster.test_admission import Asker, Leader, join
from tests.daemon.cluster.virtual_time import VirtualTime


def test_who_asks_again_by_the_same_key_is_the_member_that_it_is(tmp_path: Path) -> None:
    """Its answer was lost, and the token had one use. Another key is another host, whoever's name it takes."""

    async def story() -> None:
        leader = Leader(Ca(tmp_path))
        leader.elsewhere = SimpleNamespace(is_alive=lambda node: asyncio.sleep(0, False))
        key, request = new_key_and_request(leader.credentials.subject)
        first = await leader.admission().admit(join(request))
        again = await leader.admission().admit(join(request_for(key, leader.credentials.subject)))
        assert (again.number, again.secret) == (first.number, first.secret)
        assert list(leader.facts.members) == [1, 2]
        _, stolen = new_key_and_request(leader.credentials.subject)
        for wrong in (stolen, b"", b"x" * 4_000):
            with pytest.raises(AbiError) as caught:
                await leader.admission().admit(join(wrong))
            assert caught.value.code == "wrong_token"
        assert leader.asked == [commands.AdmitOnce] * 2, "nothing is written for who has only the token"

    hosts.run(story())


NOBODY = [
    NoLeader("no host leads the cluster just now"),
    NodeUnreachable("it is not there"),
    PeerRefused("connection lost", code=Code.PROTOCOL),
    Timeout("it did not answer"),
    PeerSaidNo("nobody leads", code="unavailable"),
    PeerSaidNo("too many", code="busy"),
]


@pytest.mark.parametrize("error", NOBODY, ids=lambda one: f"{type(one).__name__} {one.code}")
def test_where_nobody_decided_the_stranger_is_told_so_and_what_to_do(tmp_path: Path, error: AbiError) -> None:
    async def story() -> None:
        leader, asker = Leader(Ca(tmp_path)), Asker()

        async def ask(question: object, limit_s: float) -> None:
            raise error

        leader.ask = ask  # type: ignore[method-assign]
        await leader.admission().on_stranger(cast(Stranger, asker), join(b""))
        (told,) = asker.told
        assert (told.code, told.message, exits.of_error(told)) == ("unavailable", error.message, exits.UNREACHABLE)
        assert "have to be up" in told.hint

    hosts.run(story())


def test_what_the_leader_decided_is_told_as_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        leader, asker = Leader(Ca(tmp_path)), Asker()

        async def ask(question: object, limit_s: float) -> None:
            raise PeerSaidNo("used up", code="wrong_token", hint="make another")

        leader.ask = ask  # type: ignore[method-assign]
        await leader.admission().on_stranger(cast(Stranger, asker), join(b""))
        assert [(told.code, told.message, told.hint) for told in asker.told] == [
            ("wrong_token", "used up", "make another")
        ]

    hosts.run(story())


@pytest.mark.parametrize("end", [NodeUnreachable("who leads now is not reached"), Result(STALE, "overtaken", 7)])
def test_an_office_that_was_lost_meanwhile_is_said_to_whoever_passed_it_on(
    tmp_path: Path, end: AbiError | Result
) -> None:
    async def story() -> None:
        leader = Leader(Ca(tmp_path))
        _, request = new_key_and_request(leader.credentials.subject)

        async def command(kind: object, **words: object) -> Result:
            if isinstance(end, AbiError):
                raise end
            return end

        leader.command = command  # type: ignore[method-assign]
        with pytest.raises(Superseded) as caught:
            await leader.admission().admit(join(request))
        assert caught.value.code == "not_leader"

    hosts.run(story())


class Passing(test_asking.Cluster):
    """A member that does not lead, and what whoever leads answers it."""

    def __init__(self, answer: Body) -> None:
        super().__init__()
        self.leader = 0
        self.answer = answer
        self.asking = test_asking.asking(self)
        self.consensus = self

    async def ask(self, node: str, verb: str, body: Body, timeout_s: float) -> Body:
        assert (verb, timeout_s <= LEADER_S) == (JOIN, True)
        self.asked.append((node, body["message"]))
        end = self.ends.pop(0) if self.ends else None
        if isinstance(end, AbiError):
            raise end
        return self.answer


def test_an_election_is_waited_for_and_a_lost_connection_is_made_anew() -> None:
    async def story() -> None:
        admitted = Admitted(b"certificate", b"secret", 1, 7)
        member, asker = Passing({"message": msgspec.msgpack.encode(admitted)}), Asker()
        member.ends = [PeerSaidNo("I lead no more", code="not_leader"), NodeUnreachable("cut"), PeerRefused("cut")]
        answer = asyncio.ensure_future(
            Admission(cast(Member, member)).on_stranger(cast(Stranger, asker), join(b"request"))
        )
        await asyncio.sleep(1.0)
        assert (asker.told, member.asked) == ([], [])
        member.leader, member.term = 3, 2
        member.asking.on_change()
        await answer
        assert asker.told == [admitted]
        assert len(member.asked) == 4
        assert len(set(member.asked)) == 1

    hosts.run(story(), VirtualTime)


def test_the_stranger_hears_that_nobody_leads_before_its_connection_ends() -> None:
    async def story() -> None:
        member, asker, loop = Passing({}), Asker(), asyncio.get_running_loop()
        member.asking._timeout_s = lambda: 3_600.0
        began = loop.time()
        await Admission(cast(Member, member)).on_stranger(cast(Stranger, asker), join(b"request"))
        assert loop.time() - began == pytest.approx(LEADER_S)
        assert LEADER_S < ANSWER_S
        (told,) = asker.told
        assert told.code == "unavailable"
        assert told.message == "the cluster did not answer within 25 s: no host leads the cluster just now"

    hosts.run(story(), VirtualTime)


def test_a_refusal_of_the_stranger_is_no_failure_to_ask(tmp_path: Path) -> None:
    """Though both are PeerRefused: it is said at once, and asked once."""

    async def story() -> None:
        leader, asker = Leader(Ca(tmp_path)), Asker()
        cluster = test_asking.Cluster()
        cluster.is_leader, cluster.leader = True, 1
        asked: list[Any] = []

        async def admit(message: object) -> Admitted:
            asked.append(message)
            raise PeerRefused("it is alive", code=Code.COPY, hint="leave")

        leader.asking = test_asking.asking(cluster)  # type: ignore[assignment]
        admission = leader.admission()
        admission.admit = admit  # type: ignore[method-assign, assignment]
        await admission.on_stranger(cast(Stranger, asker), join(b""))
        assert [(told.code, told.hint) for told in asker.told] == [(Code.COPY, "leave")]
        assert len(asked) == 1

    hosts.run(story(), VirtualTime)
