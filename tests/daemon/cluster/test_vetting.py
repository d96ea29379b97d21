"""Who connects is asked where it stands until it says so: nothing of Raft's is listened to before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError, NodeUnreachable, Timeout
from abid.cluster import member as cluster
from abid.cluster.peer import Peer
from abid.cluster.requests import Body, PeerSaidNo
from abid.cluster.vetting import ABOUT, FORGOTTEN, Vetting
from abid.core.cluster.facts import Facts, Member
from tests.daemon.cluster.hosts import run

SAID: Body = {"number": 2, "standing": [1, 2, 3], "cpu_cores": 4, "has_gpu": True}


class Other(SimpleNamespace):
    """A peer, and what becomes of each question to it, in order."""

    __hash__ = object.__hash__

    def __init__(self, *ends: AbiError) -> None:
        super().__init__(node="b", is_open=True, ends=list(ends), asked=0, verbs=[], sent_away=[], settled=[])

    async def ask(self, peer: Any, verb: str, body: Body, timeout_s: float) -> Body:
        self.asked += 1
        self.verbs.append(verb)
        if self.ends:
            raise self.ends.pop(0)
        if self.verbs.count(FORGOTTEN) == 2:
            self.is_open = False  # it was readmitted, and comes as somebody else
        return SAID

    def send_away(self, peer: Any, why: AbiError) -> None:
        self.sent_away.append(why)


def vetting_of(other: Other, number: int = 2, copy: AbiError | None = None) -> Vetting:
    """``number``: by which the facts know it. ``copy``: why it is not let in, for what others say."""

    async def why_not(peer: Peer) -> AbiError | None:
        return copy

    facts = Facts(members={number: Member(number, "b", "host b", (), 0)})
    recollection = SimpleNamespace(missing=lambda number, standing: None)
    standing = SimpleNamespace(term=1, vote=0, last_index=1)
    member = SimpleNamespace(
        node="a", number=1, requests=other, peers=other, request_timeout_s=lambda: 1.0, on_settled=other.settled.append,
        elsewhere=SimpleNamespace(why_not=why_not),
        consensus=SimpleNamespace(raft=SimpleNamespace(recollection=recollection, standing=standing), facts=facts),
    )  # fmt: skip
    vetting = Vetting(cast(cluster.Member, member), {})
    vetting._lots = cast(Any, SimpleNamespace(random=lambda: 0.01))
    return vetting


async def vetted(other: Other, number: int = 2, copy: AbiError | None = None) -> bool:
    vetting = vetting_of(other, number, copy)
    await vetting.ask(cast(Peer, other))
    return vetting.listens_to(cast(Peer, other))


@pytest.mark.parametrize("slow", [Timeout("it slept"), PeerSaidNo("too many", code="busy")])
def test_one_that_is_slow_is_asked_again(slow: AbiError) -> None:
    async def tell() -> None:
        other = Other(*[slow] * 3)
        assert await vetted(other)
        assert other.asked == 4

    run(tell())


@pytest.mark.parametrize("final", [NodeUnreachable("it is gone"), PeerSaidNo("no such request", code="usage")])
def test_what_will_not_change_is_not_asked_again(final: AbiError) -> None:
    async def tell() -> None:
        other = Other(final)
        assert not await vetted(other)
        assert other.asked == 1

    run(tell())


def test_with_the_connection_the_question_ends() -> None:
    async def tell() -> None:
        other = Other(Timeout("it slept"))
        other.is_open = False
        assert not await vetted(other)

    run(tell())


@pytest.mark.parametrize(("known_as", "listened"), [(1, True), (2, True), (3, False)])
def test_one_that_speaks_as_who_it_was_is_told_that_it_has_forgotten(known_as: int, listened: bool) -> None:
    """It says that it is member 2. Who is behind may know it by an earlier number, and never by a later one."""

    async def tell() -> None:
        other = Other()
        assert await vetted(other, known_as) is listened
        assert other.verbs == ([ABOUT] if listened else [ABOUT, FORGOTTEN] * 2)

    run(tell())


def test_one_that_is_somebody_else_elsewhere_is_sent_away_unasked() -> None:
    async def tell() -> None:
        other, copy = Other(), AbiError("another one is there")
        assert not await vetted(other, copy=copy)
        assert (other.sent_away, other.asked) == ([copy], 0)

    run(tell())


@pytest.mark.parametrize("it_asks_first", [True, False])
def test_it_is_settled_when_each_has_let_in_the_other(it_asks_first: bool) -> None:
    """A copy that we answer, and that sends us away or is sent away, has settled nothing."""

    async def tell() -> None:
        other = Other()
        peer, vetting = cast(Peer, other), vetting_of(other)
        steps = [vetting.on_about(peer, {}), vetting.ask(peer)]
        first, second = steps if it_asks_first else reversed(steps)
        await first
        assert other.settled == []
        await second
        assert other.settled == [other]

    run(tell())
