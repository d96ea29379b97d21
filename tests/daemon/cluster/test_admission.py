"""What a stranger is answered when something is wrong with what it asks, or with whom it asks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError
from abi.wire.peers import PEER_PROTOCOL, Admitted, Join
from abid.cluster import credentials
from abid.cluster.admission import ADMISSIONS_MAX, Admission
from abid.cluster.asking import Question
from abid.cluster.certificates import CertificateError
from abid.cluster.door import Stranger
from abid.cluster.member import Member
from abid.cluster.refusal import Code, PeerRefused
from abid.cluster.token import digest
from abid.core.cluster import commands
from abid.core.cluster.facts import Facts, Result, Token
from abid.core.cluster.facts import Member as Known
from tests.daemon.cluster.hosts import CLUSTER, Ca, run

A, NEW = "0000000a", "0000000f"
SECRET = b"s" * 16


class Leader:
    """Of a cluster of one, which knows a token."""

    is_leader = True
    node = A

    def __init__(self, ca: Ca) -> None:
        self.authority = ca.authority
        self.credentials = ca.member(A)
        token = Token(digest(SECRET), 1, int(time.time() * 1000) + 60_000)
        self.facts = Facts(CLUSTER, 1, 2, {1: Known(1, A, "a", (), 0)}, tokens={"t": token})
        self.peers = SimpleNamespace(connected={})
        self.elsewhere = SimpleNamespace()
        self.configuration = SimpleNamespace(all_voters=frozenset({1}))
        self.consensus = self.asking = self
        self.asked: list[type] = []

    async def refresh(self) -> None: ...

    async def ask(self, question: Question[Any], limit_s: float) -> Any:
        return await question.here()

    async def command(self, kind: Any, **words: Any) -> Result:
        self.asked.append(kind)
        return self.facts.apply(kind(origin=1, serial=len(self.asked), at_ms=0, **words))

    def admission(self) -> Admission:
        return Admission(cast(Member, self))


class Asker:
    """A stranger, and what it was told."""

    address = "192.0.2.1"

    def __init__(self) -> None:
        self.told: list[Any] = []

    def answer(self, kind: object, message: object) -> None:
        self.told.append(message)

    def refuse(self, error: AbiError) -> None:
        self.told.append(error)


def join(request: bytes) -> Join:
    return Join(PEER_PROTOCOL, CLUSTER, "t", SECRET, NEW, 1, "0", "new", request, ())


def test_who_has_no_key_to_show_is_found_out_before_it_is_a_member(tmp_path: Path) -> None:
    async def story() -> None:
        leader = Leader(Ca(tmp_path))
        for wrong in (b"", b"no request", b"x" * 4_000):
            with pytest.raises(CertificateError):
                await leader.admission().admit(join(wrong))
        assert leader.asked == []
        _, request = credentials.next_request(tmp_path, leader.credentials.subject)
        assert (await leader.admission().admit(join(request))).number == 2, "the token is as good as before"
        assert leader.asked == [commands.AdmitOnce]

    run(story())


@pytest.mark.parametrize("error", [OSError("no room"), RuntimeError("a mistake of ours")])
def test_nobody_is_left_waiting_whatever_went_wrong(tmp_path: Path, error: Exception) -> None:
    async def story() -> None:
        leader, asker = Leader(Ca(tmp_path)), Asker()
        _, request = credentials.next_request(tmp_path, leader.credentials.subject)

        async def fails(kind: Any, **words: Any) -> Result:
            raise error

        works, leader.command = leader.command, fails  # type: ignore[method-assign]
        await leader.admission().on_stranger(cast(Stranger, asker), join(request))
        leader.command = works  # type: ignore[method-assign]
        await leader.admission().on_stranger(cast(Stranger, asker), join(request))
        assert [type(told) for told in asker.told] == [AbiError, Admitted]

    run(story())


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_member_that_another_voter_speaks_with_does_not_join_again(tmp_path: Path, is_alive: bool) -> None:
    """Its directory was copied, and a token is for both. One that lost its disk may come back so."""

    async def story() -> None:
        leader, asked = Leader(Ca(tmp_path)), []
        leader.facts.members[2] = Known(2, NEW, "new", (), 0)

        async def answer(node: str) -> bool:
            asked.append(node)
            return is_alive

        leader.elsewhere = SimpleNamespace(is_alive=answer)
        _, request = credentials.next_request(tmp_path, leader.credentials.subject)
        if is_alive:
            with pytest.raises(PeerRefused) as caught:
                await leader.admission().admit(join(request))
            assert caught.value.code == Code.COPY
        else:
            await leader.admission().admit(join(request))
        assert (asked, leader.asked) == ([NEW], [] if is_alive else [commands.AdmitOnce])

    run(story())


def test_those_that_ask_are_few_at_once_also_when_they_have_gone(tmp_path: Path) -> None:
    async def story() -> None:
        leader = Leader(Ca(tmp_path))
        admission, leads, under_way = leader.admission(), asyncio.Event(), []
        _, request = credentials.next_request(tmp_path, leader.credentials.subject)

        async def ask(question: Question[Any], limit_s: float) -> Any:
            under_way.append(question)
            await leads.wait()
            return await question.here()

        leader.ask = ask  # type: ignore[method-assign]
        askers = [Asker() for _ in range(ADMISSIONS_MAX + 1)]
        asked = [asyncio.ensure_future(admission.on_stranger(cast(Stranger, one), join(request))) for one in askers]
        await asked[-1]
        assert [told.code for told in askers[-1].told] == [Code.BUSY]
        assert len(under_way) == ADMISSIONS_MAX
        asked[0].cancel()
        leads.set()
        await asyncio.wait(asked)
        again = [Asker() for _ in range(ADMISSIONS_MAX)]
        await asyncio.gather(*(admission.on_stranger(cast(Stranger, one), join(b"")) for one in again))
        assert Code.BUSY not in {told.code for one in again for told in one.told}

    run(story())


def test_a_voter_that_asks_again_has_lost_its_log_and_gets_another_number(tmp_path: Path) -> None:
    async def story() -> None:
        leader = Leader(Ca(tmp_path))
        leader.elsewhere = SimpleNamespace(is_alive=lambda node: asyncio.sleep(0, False))
        _, request = credentials.next_request(tmp_path, leader.credentials.subject)
        assert (await leader.admission().admit(join(request))).number == 2
        leader.configuration.all_voters = frozenset({1, 2})
        assert (await leader.admission().admit(join(request))).number == 3
        assert leader.asked == [commands.AdmitOnce, commands.AdmitOnce, commands.Readmit]

    run(story())
