"""A host that has just connected, and another one with its identity that a third member speaks with."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError, NodeUnreachable, Timeout
from abid.cluster import certificates, credentials
from abid.cluster.elsewhere import ALIVE, LIVES, LIVES_MAX, NONCE_BYTES, Elsewhere
from abid.cluster.peer import Peer
from abid.cluster.refusal import Code
from abid.cluster.requests import Body
from tests.daemon.cluster.hosts import Ca, run

A, B, C, X = "0000000a", "0000000b", "0000000c", "0000000d"
VOTERS = {1: A, 2: B, 3: X, 4: C}
NUMBERS = {node: number for number, node in VOTERS.items()}


class Connection(SimpleNamespace):
    """With a host in one of its lives, as the member at this end sees it."""

    __hash__ = object.__hash__

    def __init__(self, to: View) -> None:
        words = SimpleNamespace(life=to.life)
        super().__init__(to=to, node=to.node, words=words, address=f"at {to.life}", is_open=True, is_there=True)
        self.abandoned: list[str] = []

    async def answers(self, timeout_s: float) -> bool:
        return bool(self.is_there)

    def abandon(self, error: AbiError) -> None:
        self.abandoned.append(error.code)


class View:
    """One daemon. ``answers``: what becomes of a question to it, if not what its own rules say."""

    def __init__(self, ca: Ca, node: str, life: int, voters: Iterable[int] = (1, 2, 3)) -> None:
        self.node, self.life = node, life
        self.suspects: set[int] = set()
        self.connected: dict[str, Connection] = {}
        self.let_in: set[Any] = set()
        self.noted: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.sent_away: list[tuple[str, str]] = []
        self.later: list[asyncio.Task[None]] = []
        self.answers: dict[str, Callable[[Body], Body]] = {}
        self.ca = ca
        own = ca.member(node, name=f"{node} {life}")
        self.folder = own.folder
        self.elsewhere = Elsewhere(
            cast(
                Any,
                SimpleNamespace(
                    node=node, number=NUMBERS[node], credentials=own, node_of=VOTERS.get,
                    health=SimpleNamespace(state_of=lambda number: "suspect" if number in self.suspects else "alive"),
                    peers=SimpleNamespace(connected=self.connected, life=life, send_away=self._send_away),
                    requests=SimpleNamespace(ask=self._ask),
                    later=lambda work: self.later.append(asyncio.get_running_loop().create_task(work)),
                    consensus=SimpleNamespace(
                        configuration=SimpleNamespace(all_voters=frozenset(voters)),
                        facts=SimpleNamespace(of_node=lambda node: SimpleNamespace(number=NUMBERS[node])),
                    ),
                    vetting=SimpleNamespace(listens_to=self.let_in.__contains__),
                    twins=SimpleNamespace(remember=lambda node, address: self.noted.append((node, address))),
                ),
            )
        )  # fmt: skip

    def meet(self, other: View, *, let_in: bool = True) -> Connection:
        """From this side only, as in a moment of change."""
        connection = self.connected[other.node] = Connection(other)
        if let_in:
            self.let_in.add(connection)
        return connection

    def _send_away(self, peer: Connection, why: AbiError) -> None:
        self.sent_away.append((peer.node, why.code))

    async def _ask(self, peer: Connection, verb: str, body: Body, timeout_s: float) -> Body:
        self.asked.append(f"{verb} {peer.node}")
        other = peer.to
        if verb in other.answers:
            return other.answers[verb](body)
        handler = {LIVES: other.elsewhere.on_lives, ALIVE: other.elsewhere.on_alive}[verb]
        return await handler(cast(Peer, self), body)

    async def why_not(self, peer: Connection) -> str | None:
        why = await self.elsewhere.why_not(cast(Peer, peer))
        return None if why is None else why.code


def met(tmp_path: Path, **options: Any) -> tuple[View, View, View, Connection]:
    """B speaks with a host that is X; another one comes to A."""
    ca = Ca(tmp_path)
    a, b, first, second = View(ca, A, 1), View(ca, B, 2), View(ca, X, 31), View(ca, X, 32)
    a.meet(b)
    b.meet(a)
    b.meet(first, **options)
    return a, b, first, a.meet(second, let_in=False)


@pytest.mark.parametrize(("let_in", "code"), [(True, Code.COPY), (False, Code.CONTENDED)])
def test_who_is_somebody_else_to_another_voter_is_sent_away(tmp_path: Path, let_in: bool, code: Code) -> None:
    async def tell() -> None:
        a, b, _, newcomer = met(tmp_path, let_in=let_in)
        assert await a.why_not(newcomer) == code
        assert (a.asked, b.asked, a.noted) == ([f"{LIVES} {B}"], [f"{ALIVE} {X}"], [(X, "at 32")])

    run(tell())


def test_who_is_the_same_to_all_or_known_to_nobody_comes_in(tmp_path: Path) -> None:
    async def tell() -> None:
        ca = Ca(tmp_path)
        a, b, host = View(ca, A, 1), View(ca, B, 2), View(ca, X, 31)
        newcomer = a.meet(host, let_in=False)
        assert await a.why_not(newcomer) is None
        assert a.asked == [], "nobody else is there to be asked"
        a.meet(b)
        assert await a.why_not(newcomer) is None
        b.meet(host)
        assert await a.why_not(newcomer) is None
        assert (a.asked, b.asked) == ([f"{LIVES} {B}"] * 2, []), "the same life needs no proof"

    run(tell())


@pytest.mark.parametrize("voters", [[1, 3], [1, 2], [2, 3]], ids=["not asked", "not asked about", "does not ask"])
def test_it_is_for_voters(tmp_path: Path, voters: list[int]) -> None:
    """What others do with their places misleads no vote."""

    async def tell() -> None:
        ca = Ca(tmp_path)
        a, b, first, second = View(ca, A, 1, voters), View(ca, B, 2), View(ca, X, 31), View(ca, X, 32)
        a.meet(b)
        b.meet(first)
        assert await a.why_not(a.meet(second)) is None
        assert a.asked == []

    run(tell())


def test_who_is_only_suspected_to_be_alive_is_not_waited_for(tmp_path: Path) -> None:
    async def tell() -> None:
        a, _, _, newcomer = met(tmp_path)
        a.suspects.add(NUMBERS[B])
        assert await a.why_not(newcomer) is None
        assert a.asked == []

    run(tell())


def test_another_voter_proves_that_somebody_is_there(tmp_path: Path) -> None:
    """For one that would join as who it was, and has no connection yet."""

    async def tell() -> None:
        a, b, _, _ = met(tmp_path)
        assert await a.elsewhere.is_alive(X)
        del b.connected[X]
        assert not await a.elsewhere.is_alive(X)

    run(tell())


def test_where_one_knows_it_well_another_that_does_not_says_nothing(tmp_path: Path) -> None:
    async def tell() -> None:
        ca = Ca(tmp_path)
        voters = [1, 2, 3, 4]
        a, b, c = View(ca, A, 1, voters), View(ca, B, 2), View(ca, C, 4)
        for other, life, let_in in ((b, 31, False), (c, 33, True)):
            a.meet(other)
            other.meet(View(ca, X, life), let_in=let_in)
        assert await a.why_not(a.meet(View(ca, X, 32), let_in=False)) == Code.COPY

    run(tell())


def test_of_two_the_one_that_is_silent_here_goes(tmp_path: Path) -> None:
    """It was started again, and came to another member first: nobody was copied."""

    async def tell() -> None:
        a, *_, newcomer = met(tmp_path)
        newcomer.is_there = False
        assert await a.why_not(newcomer) is None
        a.let_in.add(newcomer)
        await a.elsewhere.compare(cast(Peer, a.connected[B]))
        assert (newcomer.abandoned, a.noted, a.sent_away) == ([Code.SILENT] * 2, [], [])
        newcomer.is_open = False
        assert await a.why_not(newcomer) is None
        assert len(newcomer.abandoned) == 2

    run(tell())


@pytest.mark.parametrize("silence", [Timeout("it slept"), NodeUnreachable("it is gone")])
def test_whoever_is_not_there_any_more_keeps_nobody_out(tmp_path: Path, silence: AbiError) -> None:
    """It was started again, and the other member has not noticed; or that one itself is gone."""

    def be_silent(body: Body) -> Body:
        raise silence

    async def tell() -> None:
        a, _, first, newcomer = met(tmp_path)
        first.answers[ALIVE] = be_silent
        assert await a.why_not(newcomer) is None
        a, _, first, newcomer = met(tmp_path)
        first.answers[ALIVE] = lambda body: {"certificate": 7}
        assert await a.why_not(newcomer) is None, "what it says is no proof"
        a, b, _, newcomer = met(tmp_path)
        b.answers[LIVES] = be_silent
        assert await a.why_not(newcomer) is None

    run(tell())


def own_proof(view: View, nonce: bytes, life: int) -> dict[str, Any]:
    certificate, key = credentials.member_pair(view.folder)
    statement = nonce + life.to_bytes(8, "big")
    return {"certificate": certificate, "proof": certificates.prove(key, statement, certificates.ALIVE)}


def old_proof(folder: Path, newcomer: View, nonce: bytes, **options: Any) -> dict[str, Any]:
    """With a certificate that the authority once gave it."""
    old = SimpleNamespace(folder=newcomer.ca.member(X, name="old", **options).folder)
    return own_proof(cast(View, old), nonce, 99)


Lie = Callable[[Path, View, View, bytes], dict[str, Any]]
LIES: dict[str, Lie] = {
    "its own key": lambda folder, liar, newcomer, nonce: own_proof(liar, nonce, 99),
    "the life that all know": lambda folder, liar, newcomer, nonce: own_proof(newcomer, nonce, newcomer.life),
    "an old answer": lambda folder, liar, newcomer, nonce: own_proof(newcomer, os.urandom(NONCE_BYTES), 99),
    "another authority": lambda folder, liar, newcomer, nonce: own_proof(View(Ca(folder / "other"), X, 99), nonce, 99),
    "no other life": lambda folder, liar, newcomer, nonce: {**own_proof(newcomer, nonce, 99), "life": 32},
    "another node": lambda folder, liar, newcomer, nonce: {**own_proof(newcomer, nonce, 99), "node": B},
    "no certificate": lambda folder, liar, newcomer, nonce: {**own_proof(newcomer, nonce, 99), "certificate": b"none"},
    "an endless life": lambda folder, liar, newcomer, nonce: {**own_proof(newcomer, nonce, 99), "life": float("inf")},
    "a life below zero": lambda folder, liar, newcomer, nonce: {**own_proof(newcomer, nonce, 99), "life": -1},
    "a long certificate": lambda folder, liar, newcomer, nonce: {
        **own_proof(newcomer, nonce, 99),
        "certificate": 1 << 40,
    },
    "a proof to renew": lambda folder, liar, newcomer, nonce: {
        **own_proof(newcomer, nonce, 99),
        "proof": certificates.prove(
            credentials.member_pair(newcomer.folder)[1], nonce + (99).to_bytes(8, "big"), certificates.RENEWAL
        ),
    },
    "another incarnation": lambda folder, liar, newcomer, nonce: old_proof(folder, newcomer, nonce, incarnation=2),
    "ran out": lambda folder, liar, newcomer, nonce: old_proof(folder, newcomer, nonce, now=time.time() - 40 * 86_400),
    "nothing": lambda folder, liar, newcomer, nonce: {},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_member_that_lies_keeps_nobody_out(tmp_path: Path, lie: Lie) -> None:
    """It knows the newcomer too, which proves what is true."""

    async def tell() -> None:
        a, b, _, newcomer = met(tmp_path)
        to_say: dict[str, Any] = {"node": X, "life": 99, "is_let_in": True}
        b.answers[LIVES] = lambda body: {"others": [{**to_say, **lie(tmp_path, b, newcomer.to, body["nonce"])}]}
        assert await a.why_not(newcomer) is None
        for wrong in (7, [to_say] * (LIVES_MAX + 1), [7]):
            b.answers[LIVES] = lambda body, wrong=wrong: {"others": wrong}  # type: ignore[misc]
            assert await a.why_not(newcomer) is None
        assert a.noted == []

    run(tell())


@pytest.mark.parametrize(
    ("ours", "theirs", "becomes"),
    [
        (True, True, [(X, Code.CONTENDED)]),
        (False, True, [(X, Code.COPY)]),
        (True, False, []),
        (False, False, []),
    ],
)
def test_members_compare_whom_they_know(
    tmp_path: Path, ours: bool, theirs: bool, becomes: list[tuple[str, Code]]
) -> None:
    """One that has just come to them does not throw out the one that we know."""

    async def tell() -> None:
        a, _, _, newcomer = met(tmp_path, let_in=theirs)
        if ours:
            a.let_in.add(newcomer)
        await a.elsewhere.compare(cast(Peer, a.connected[B]))
        assert a.sent_away == becomes
        assert a.noted == [(X, "at 32")] * len(becomes)

    run(tell())


def test_now_and_then_all_are_asked(tmp_path: Path) -> None:
    async def tell() -> None:
        a, _, _, newcomer = met(tmp_path)
        a.let_in.add(newcomer)
        for _ in range(2):
            a.elsewhere.look()
            await asyncio.gather(*a.later)
        assert sorted(a.asked) == [f"{LIVES} {B}", f"{LIVES} {X}"], "once in so many seconds"
        assert a.sent_away == [(X, Code.CONTENDED)]

    run(tell())


@pytest.mark.parametrize(
    "body",
    [
        {"lives": {}, "nonce": b"short"},
        {"lives": {f"{number:08x}": 1 for number in range(LIVES_MAX + 1)}, "nonce": bytes(NONCE_BYTES)},
        {"lives": 7, "nonce": bytes(NONCE_BYTES)},
    ],
)
def test_what_is_no_question_is_refused(tmp_path: Path, body: Body) -> None:
    async def tell() -> None:
        with pytest.raises(ValueError):
            await View(Ca(tmp_path), A, 1).elsewhere.on_lives(cast(Peer, None), body)

    run(tell())
