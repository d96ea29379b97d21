"""Who asks a member: one circuit breaker each, that stands before questions and before nothing else."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path

import pytest

from abi.breaker import FAILURE_THRESHOLD, RESET_TIMEOUT_NS
from abi.errors import AbiError, NodeUnreachable, ProtocolError, Timeout
from abi.wire.peers import PeerKind
from abid.cluster.breakers import BreakerOpen, Breakers
from abid.cluster.peer import Peer
from abid.cluster.reach import PAUSE_S_MAX, Reach
from abid.cluster.refusal import PeerRefused
from abid.cluster.requests import Body, PeerSaidNo, Requests
from tests.daemon.cluster.hosts import LOCALHOST, WAIT_S, Ca, Host, run

A, B, C = "0000000a", "0000000b", "0000000c"
SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(clock)


def question(breakers: Breakers, becomes: BaseException | None = None, node: str = B) -> bool:
    """One that ends so; whether it was let through."""
    was_let_through = False
    try:
        with breakers.guarding(node):
            was_let_through = True
            if becomes is not None:
                raise becomes
    except BreakerOpen:
        return False
    except BaseException as error:
        if error is not becomes:
            raise
    return was_let_through


def opened(breakers: Breakers) -> Breakers:
    for _ in range(FAILURE_THRESHOLD):
        assert question(breakers, NodeUnreachable("nobody is there"))
    return breakers


def state(breakers: Breakers, node: str = B) -> object:
    return breakers.described(node)["state"]


# --- the rule, for members --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [NodeUnreachable("no"), PeerRefused("no"), Timeout("no")])
def test_five_failures_and_it_is_left_alone(breakers: Breakers, failure: AbiError) -> None:
    for count in range(FAILURE_THRESHOLD):
        assert (state(breakers), breakers.described(B)["failures"]) == ("closed", count)
        assert question(breakers, failure)
    assert state(breakers) == "open"
    assert not question(breakers)


def test_each_member_has_its_own(breakers: Breakers) -> None:
    opened(breakers)
    assert question(breakers, node=C)
    assert (state(breakers, B), state(breakers, C)) == ("open", "closed")


def test_it_says_whom_why_and_for_how_long(breakers: Breakers, clock: Clock) -> None:
    opened(breakers)
    clock.now_ns = 6 * SECOND
    with pytest.raises(NodeUnreachable) as caught, breakers.guarding(B):
        pytest.fail("it was let through")
    said = caught.value.message
    assert said == (
        f"the circuit breaker of node {B} is open, and lets the next try through in 24.0 s; "
        "the last one failed: nobody is there"
    )
    assert caught.value.code == "node_unreachable"


@pytest.mark.parametrize("answer", [None, PeerSaidNo("no", code="not_leader")])
def test_an_answer_clears_the_failures_and_a_no_is_one(breakers: Breakers, answer: AbiError | None) -> None:
    for _ in range(3 * FAILURE_THRESHOLD):
        for _ in range(FAILURE_THRESHOLD - 1):
            question(breakers, Timeout("late"))
        assert question(breakers, answer)
    assert breakers.described(B) == {"state": "closed", "failures": 0, "retry_after_ms": 0}


@pytest.mark.parametrize("ours", [ProtocolError("a frame too long"), asyncio.CancelledError(), KeyError("x")])
def test_what_is_no_fault_of_the_members_counts_as_nothing(breakers: Breakers, ours: BaseException) -> None:
    for _ in range(3 * FAILURE_THRESHOLD):
        assert question(breakers, ours)
    assert breakers.described(B)["failures"] == 0


def test_after_thirty_seconds_three_probes_and_no_fourth(breakers: Breakers, clock: Clock) -> None:
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS - 1
    assert not question(breakers)
    clock.now_ns += 1
    with breakers.guarding(B), breakers.guarding(B), breakers.guarding(B):
        assert not question(breakers)
    assert state(breakers) == "closed"


def test_past_fault_one_probe_closed_it_by_successes_of_before(breakers: Breakers, clock: Clock) -> None:
    for _ in range(10):
        question(breakers)
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS
    assert question(breakers)
    assert state(breakers) == "half-open"
    assert question(breakers, Timeout("late"))
    assert state(breakers) == "open"


def test_past_fault_a_probe_was_counted_twice(breakers: Breakers, clock: Clock) -> None:
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS
    assert question(breakers)
    assert question(breakers)
    assert state(breakers) == "half-open"
    assert question(breakers)
    assert state(breakers) == "closed"


def test_past_fault_probes_whose_callers_died_kept_it_half_open(breakers: Breakers, clock: Clock) -> None:
    """Nothing is ever heard of them: neither an end nor a cancellation."""
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS
    lost = [breakers.guarding(B) for _ in range(3)]
    for one in lost:
        one.__enter__()
    assert not question(breakers)
    clock.now_ns = 2 * RESET_TIMEOUT_NS
    assert [question(breakers) for _ in range(3)] == [True] * 3
    assert state(breakers) == "closed"


def test_a_cancelled_probe_gives_its_place_back_at_once(breakers: Breakers, clock: Clock) -> None:
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS
    with breakers.guarding(B), breakers.guarding(B):
        for _ in range(10):
            assert question(breakers, asyncio.CancelledError())


def test_who_connects_is_left_alone_no_longer(breakers: Breakers) -> None:
    opened(breakers).on_connected(B)
    assert breakers.described(B) == {"state": "closed", "failures": 0, "retry_after_ms": 0}
    assert question(breakers)


def test_who_connects_has_its_failures_cleared_and_those_after_it_count(breakers: Breakers) -> None:
    for _ in range(FAILURE_THRESHOLD - 1):
        question(breakers, Timeout("late"))
    with pytest.raises(Timeout), breakers.guarding(B):
        breakers.on_connected(B)
        raise Timeout("it connected, and did not answer")
    assert breakers.described(B)["failures"] == 1


def test_what_a_probe_becomes_after_its_member_connected_says_nothing(breakers: Breakers, clock: Clock) -> None:
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS
    with pytest.raises(Timeout), breakers.guarding(B):
        breakers.on_connected(B)
        raise Timeout("it connected, and did not answer")
    assert breakers.described(B) == {"state": "closed", "failures": 0, "retry_after_ms": 0}


def test_who_is_no_member_is_forgotten(breakers: Breakers) -> None:
    opened(breakers).forget(B)
    assert breakers.nodes == set()
    assert state(breakers) == "closed"


def test_opening_and_closing_are_logged(breakers: Breakers, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # questions that an earlier test left unanswered end when they are collected, and say so
    caplog.set_level(logging.INFO)
    opened(breakers)
    clock.now_ns = RESET_TIMEOUT_NS
    question(breakers, Timeout("late"))
    clock.now_ns *= 2
    for _ in range(3):
        question(breakers)
    opened(breakers).on_connected(B)
    name = f"the circuit breaker of node {B} is"
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", f"{name} open: nobody is there"),
        ("WARNING", f"{name} open: late"),
        ("INFO", f"{name} closed: it answers again"),
        ("WARNING", f"{name} open: nobody is there"),
        ("INFO", f"{name} closed: it answers again"),
    ]


# --- with real connections --------------------------------------------------------------------------------------------


class Asker(Host):
    """A member that asks. ``places`` is what it knows of the others' addresses."""

    def __init__(self, ca: Ca, clock: Clock, timeout_s: float = WAIT_S) -> None:
        super().__init__(ca.member(A))
        loop = asyncio.get_running_loop()
        self.places: dict[str, list[str]] = {}
        self.requests = Requests(loop)
        self.reach = Reach(
            loop, self.peers, self.requests, lambda node: self.places[node], lambda low, high: high,
            lambda: timeout_s, lambda node, error: None, clock,
        )  # fmt: skip

    async def ask(self, node: str = B, timeout_s: float = WAIT_S) -> Body:
        return await self.reach.ask(node, "what", {}, timeout_s)

    def state(self, node: str = B) -> object:
        return self.reach.breakers.described(node)["state"]

    def on_connected(self, peer: Peer) -> None:
        self.reach.on_connected(peer.node)
        super().on_connected(peer)

    def on_message(self, peer: Peer, kind: int, payload: bytes) -> None:
        if kind == PeerKind.RESPONSE:
            self.requests.on_response(peer, payload)

    def on_closed(self, peer: Peer, orderly: bool) -> None:
        self.requests.on_closed(peer)
        super().on_closed(peer, orderly)


class Answerer(Host):
    """A member that is asked, and answers if it ``answers``."""

    def __init__(self, ca: Ca) -> None:
        super().__init__(ca.member(B))
        self.requests = Requests(asyncio.get_running_loop())
        self.requests.handlers = {"what": self._answer}
        self.answers = True
        self.asked = 0

    async def _answer(self, peer: Peer, body: Body) -> Body:
        self.asked += 1
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        return {"it": "is"}

    def on_message(self, peer: Peer, kind: int, payload: bytes) -> None:
        self.requests.on_request(peer, payload)

    def on_closed(self, peer: Peer, orderly: bool) -> None:
        self.requests.on_closed(peer)
        super().on_closed(peer, orderly)


class Mute(asyncio.Protocol):
    """Counts who dials it, and hangs up, or says nothing at all."""

    def __init__(self, *, hangs_up: bool = True) -> None:
        self.dials = 0
        self._hangs_up = hangs_up
        self._transports: list[asyncio.BaseTransport] = []

    async def open(self) -> str:
        self._server = await asyncio.get_running_loop().create_server(lambda: self, LOCALHOST, 0)
        return f"{LOCALHOST}:{self._server.sockets[0].getsockname()[1]}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.dials += 1
        self._transports.append(transport)
        if self._hangs_up:
            transport.close()

    def close(self) -> None:
        self._server.close()
        for transport in self._transports:
            transport.close()


def test_five_dials_in_vain_and_then_none(tmp_path: Path, clock: Clock) -> None:
    async def tell() -> None:
        asker, mute = Asker(Ca(tmp_path), clock), Mute()
        asker.places[B] = [await mute.open()]
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(AbiError):
                await asker.ask()
        for _ in range(100):
            with pytest.raises(BreakerOpen):
                await asker.ask()
        assert (mute.dials, asker.state()) == (FAILURE_THRESHOLD, "open")
        mute.close()

    run(tell())


def test_what_keeps_the_cluster_together_dials_as_before_and_its_success_closes_it(
    tmp_path: Path, clock: Clock
) -> None:
    async def tell() -> None:
        ca = Ca(tmp_path)
        asker, mute, other = Asker(ca, clock), Mute(), await Answerer(ca).open()
        asker.places[B] = [await mute.open()]
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(AbiError):
                await asker.ask()
        asker.places[B] = [other.address]
        while B not in asker.peers.connected:
            asker.reach.want(B)  # as Raft and membership do, whenever they have something to say
            await asyncio.sleep(0.005)
            assert asker.state() == "open" or B in asker.peers.connected
        assert asker.state() == "closed"
        assert await asker.ask() == {"it": "is"}
        for one in (asker, other):
            one.peers.close()
        mute.close()

    run(tell())


def test_who_is_let_in_by_nobody_is_dialled_less_and_less_often(tmp_path: Path, clock: Clock) -> None:
    async def tell() -> None:
        ca = Ca(tmp_path)
        asker, other = Asker(ca, clock), await Answerer(ca).open()
        asker.places[B] = [other.address]

        async def is_dialled() -> bool:
            asker.reach.want(B)
            await asyncio.sleep(0)
            return B in asker.reach._dials

        assert await is_dialled()
        await asker.until_told("connected", B)
        other.peers.send_away(other.peers.connected[A], PeerRefused("a copy"))
        await asker.until_told("closed", B, False)
        for _ in range(10):
            asker.reach.rest(B)
        assert not await is_dialled()
        before_s, _ = asker.reach._pauses[B]
        assert before_s == PAUSE_S_MAX
        asker.reach.on_connected(B)
        assert not await is_dialled(), "it is connected, and may be sent away again"
        asker.reach.on_let_in(B)
        assert await is_dialled()
        for one in (asker, other):
            one.peers.close()

    run(tell())


def test_the_other_side_may_dial_as_well(tmp_path: Path, clock: Clock) -> None:
    async def tell() -> None:
        ca = Ca(tmp_path)
        asker, mute, other = Asker(ca, clock), Mute(), Answerer(ca)
        await asker.open()
        asker.places[B] = [await mute.open()]
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(AbiError):
                await asker.ask()
        await other.peers.dial([asker.address], WAIT_S, A)
        assert await asker.ask() == {"it": "is"}
        for one in (asker, other):
            one.peers.close()
        mute.close()

    run(tell())


def test_one_that_is_connected_and_does_not_answer_is_left_alone_too(tmp_path: Path, clock: Clock) -> None:
    """And its probes, asked when thirty seconds are over, close the breaker when all were answered."""

    async def tell() -> None:
        ca = Ca(tmp_path)
        asker, other = Asker(ca, clock), await Answerer(ca).open()
        asker.places[B] = [other.address]
        await asker.ask()
        other.answers = False
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(Timeout):
                await asker.ask(timeout_s=0.01)
        with pytest.raises(BreakerOpen):
            await asker.ask()
        clock.now_ns = RESET_TIMEOUT_NS
        other.answers = True
        states = []
        for _ in range(3):
            await asker.ask()
            states.append(asker.state())
        assert states == ["half-open", "half-open", "closed"]
        for one in (asker, other):
            one.peers.close()

    run(tell())


def test_past_fault_the_probe_of_a_cancelled_caller_kept_its_place(tmp_path: Path, clock: Clock) -> None:
    async def tell() -> None:
        asker, mute = Asker(Ca(tmp_path), clock, timeout_s=20.0), Mute(hangs_up=False)
        asker.places[B] = [await mute.open()]
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(NodeUnreachable, match="no connection with node 0000000b within 10 ms"):
                await asker.ask(timeout_s=0.01)
        clock.now_ns = RESET_TIMEOUT_NS
        for _ in range(3):
            probes = [asyncio.ensure_future(asker.ask()) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(BreakerOpen):
                await asker.ask()
            for probe in probes:
                probe.cancel()
            await asyncio.wait(probes)
            assert all(probe.cancelled() for probe in probes)
        asker.reach.close()
        mute.close()

    run(tell())


def test_a_member_that_is_removed_is_forgotten_and_who_waits_for_it_is_told(tmp_path: Path, clock: Clock) -> None:
    """Told by name: it is not its own end that it sees."""

    async def tell() -> None:
        asker, mute = Asker(Ca(tmp_path), clock, timeout_s=20.0), Mute(hangs_up=False)
        asker.places[B] = asker.places[C] = [await mute.open()]
        waiting = [asyncio.ensure_future(asker.ask(node)) for node in (B, C)]
        await asyncio.sleep(0)
        asker.reach.keep({A, C})
        with pytest.raises(NodeUnreachable, match="is not dialled any more"):
            await waiting[0]
        assert asker.reach.breakers.nodes == {C}
        waiting[1].cancel()
        asker.reach.close()
        mute.close()

    run(tell())
