"""Connections of members with each other, over real sockets: one a pair, and told when it ends and how."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from abi.errors import ConfigError, NodeUnreachable, ProtocolError
from abi.wire.frames import FRAME_BYTES_MAX
from abi.wire.peers import ADDRESSES_MAX, PeerKind, decode
from abid.cluster import peers as peers_module
from abid.cluster import tls
from abid.cluster.credentials import Credentials
from abid.cluster.link import Link
from abid.cluster.refusal import Code, PeerRefused
from tests.daemon.cluster.hosts import LOCALHOST, WAIT_S, Ca, Host, Wire, hosts, run

A, B, C = "0000000a", "0000000b", "0000000c"
Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_two_members_speak_both_ways(tmp_path: Path, loop_factory: Factory) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            peer = await a.peers.dial([b.address], WAIT_S, B)
            assert (peer.node, peer.words.node, peer.words.addresses, peer.dialled) == (B, B, (b.address,), True)
            assert a.peers.send(B, PeerKind.RAFT, b"to b")
            await b.until_told("message", A, PeerKind.RAFT, b"to b")
            large = bytes(range(256)) * (FRAME_BYTES_MAX // 256)
            assert b.peers.send(A, PeerKind.GOSSIP, large)
            assert b.peers.send(A, PeerKind.GOSSIP, b"")
            await a.until_told("message", B, PeerKind.GOSSIP, b"")
            assert a.told == [
                ("connected", B),
                ("message", B, PeerKind.GOSSIP, large),
                ("message", B, PeerKind.GOSSIP, b""),
            ]
            assert b.told[0] == ("connected", A)
            assert not a.peers.send(C, PeerKind.RAFT, b"")
            with pytest.raises(ProtocolError):
                a.peers.send(B, PeerKind.RAFT, bytes(FRAME_BYTES_MAX + 1))
            assert a.peers.send(B, PeerKind.RAFT, b"still there")
            await b.until_told("message", A, PeerKind.RAFT, b"still there")
            assert len(b.peers.door.strangers) == 0

    run(story(), loop_factory)


def test_a_goodbye_is_told_apart_from_a_broken_connection(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            peer = await a.peers.dial([b.address], WAIT_S)
            peer.say_goodbye()
            await a.until_told("closed", B, True)
            await b.until_told("closed", A, True)
            peer = await a.peers.dial([b.address], WAIT_S)
            peer.abandon(PeerRefused("its host lost power"))
            await a.until_told("closed", B, False)
            await b.until_told("closed", A, False)
            assert a.peers.connected == b.peers.connected == {}
            assert not a.peers.send(B, PeerKind.RAFT, b"")

    run(story())


def test_what_was_sent_before_a_goodbye_arrives(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            peer = await a.peers.dial([b.address], WAIT_S)
            for number in range(100):
                peer.send(PeerKind.RAFT, b"%d" % number * 10_000)
            peer.say_goodbye()
            await b.until_told("closed", A, True)
            assert [told[3] for told in b.told if told[0] == "message"] == [b"%d" % n * 10_000 for n in range(100)]

    run(story())


@pytest.mark.parametrize("round_", range(5))
def test_both_dial_at_once_and_one_connection_stays(tmp_path: Path, round_: int) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            to_b, to_a = await asyncio.gather(a.peers.dial([b.address], WAIT_S), b.peers.dial([a.address], WAIT_S))
            assert (to_b.node, to_a.node) == (B, A)
            assert to_b.dialled != to_a.dialled  # the two ends of one connection
            assert a.told.count(("connected", B)) == b.told.count(("connected", A)) == 1
            to_b.send(PeerKind.RAFT, b"over it")
            await b.until_told("message", A, PeerKind.RAFT, b"over it")
            assert [told[0] for told in a.told + b.told].count("closed") == 0

    run(story())


def test_the_lower_node_refuses_a_hello_that_crossed_its_own(tmp_path: Path) -> None:
    """Step by step: the test is b, which has been greeted and does not answer, and greets over a link of its own."""

    async def story() -> None:
        ca = Ca(tmp_path)
        b_credentials = ca.member(B)
        async with hosts(ca.member(A), b_credentials) as (a, b):
            silent, port = await _accepting(b_credentials)
            dial = asyncio.create_task(a.peers.dial([f"{LOCALHOST}:{port}"], WAIT_S))
            kind, _ = await silent.frame()
            assert kind == PeerKind.HELLO
            crossing = Wire()
            link = await crossing.dial(a.address, tls.member(b_credentials))
            await crossing.secured
            link.send(PeerKind.HELLO, b.peers.words())
            kind, payload = await crossing.frame()
            assert (kind, decode(kind, payload).code) == (PeerKind.REFUSED, Code.DUPLICATE)
            (await silent.secured).send(PeerKind.WELCOME, b.peers.words())
            assert (await dial).dialled

    run(story())


def test_the_higher_node_gives_its_own_attempt_up_for_the_lower_ones(tmp_path: Path) -> None:
    """Step by step: the test is a. The dial of b ends with the connection that a made."""

    async def story() -> None:
        ca = Ca(tmp_path)
        a_credentials = ca.member(A)
        async with hosts(a_credentials, ca.member(B)) as (a, b):
            silent, port = await _accepting(a_credentials)
            dial = asyncio.create_task(b.peers.dial([f"{LOCALHOST}:{port}"], WAIT_S))
            assert (await silent.frame())[0] == PeerKind.HELLO
            own = Wire()
            link = await own.dial(b.address, tls.member(a_credentials))
            await own.secured
            link.send(PeerKind.HELLO, a.peers.words())
            assert (await own.frame())[0] == PeerKind.WELCOME
            peer = await dial
            assert not peer.dialled
            await silent.ended
            link.send_payload(PeerKind.RAFT, b"here")
            await b.until_told("message", A, PeerKind.RAFT, b"here")

    run(story())


def test_after_a_sleep_connections_over_which_nobody_answers_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test is c, whose host lost power meanwhile."""
    monkeypatch.setattr(peers_module, "PROBE_S", 3600.0)

    async def story() -> None:
        ca = Ca(tmp_path)
        c_credentials = ca.member(C)
        async with hosts(ca.member(A), ca.member(B), c_credentials) as (a, b, c):
            await a.peers.dial([b.address], WAIT_S)
            silent = Wire()
            link = await silent.dial(a.address, tls.member(c_credentials))
            await silent.secured
            link.send(PeerKind.HELLO, c.peers.words())
            await a.until_told("connected", C)
            a.peers.on_woken()
            async with asyncio.timeout(WAIT_S):
                while len(a.peers._tests) > 1:  # noqa: ASYNC110 - nobody tells that b has answered
                    await asyncio.sleep(0.001)
            (answer,) = a.peers.connected[C]._pings.values()
            answer.set_result(False)  # as if its time were over
            await a.until_told("closed", C, False)
            assert list(a.peers.connected) == [B]

    run(story())


def test_a_dial_that_is_refused_as_a_duplicate_waits_for_the_other_connection(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        a_credentials = ca.member(A)
        async with hosts(a_credentials, ca.member(B)) as (a, b):
            refusing, port = await _accepting(a_credentials)
            dial = asyncio.create_task(b.peers.dial([f"{LOCALHOST}:{port}"], WAIT_S))
            await refusing.frame()
            (await refusing.secured).refuse(PeerRefused("it crossed ours", code=Code.DUPLICATE))
            await a.peers.dial([b.address], WAIT_S)
            assert (await dial).node == A
            assert b.told == [("connected", A)]

    run(story())


def test_dials_of_one_node_at_once_end_with_one_connection(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            dials = [a.peers.dial([b.address], WAIT_S) for _ in range(5)]
            assert len(set(await asyncio.gather(*dials))) == 1
            assert await a.peers.dial([b.address], WAIT_S) is a.peers.connected[B]
            assert b.told == [("connected", A)]

    run(story())


def test_a_later_life_takes_the_place_of_a_connection_that_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host lost power: no packet said so, and its daemon is back before anybody noticed."""
    monkeypatch.setattr(peers_module, "PROBE_S", 0.2)

    async def story() -> None:
        ca = Ca(tmp_path)
        a_credentials = ca.member(A)
        async with hosts(ca.member(B)) as (b,):
            dead = Wire()
            link = await dead.dial(b.address, tls.member(a_credentials))
            await dead.secured
            earlier = Host(a_credentials, started=1)
            link.send(PeerKind.HELLO, earlier.peers.words())
            await b.until_told("connected", A)
            later = Host(a_credentials, started=2)
            peer = await later.peers.dial([b.address], WAIT_S)
            assert b.told == [("connected", A), ("closed", A, False), ("connected", A)]
            peer.send(PeerKind.RAFT, b"alive")
            await b.until_told("message", A, PeerKind.RAFT, b"alive")
            assert (await dead.frame())[0] == PeerKind.WELCOME
            assert (await dead.frame())[0] == PeerKind.PING
            later.peers.close()

    run(story())


@pytest.mark.parametrize(("let_in", "code"), [(True, Code.COPY), (False, Code.CONTENDED)])
def test_a_copy_whose_original_is_alive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, let_in: bool, code: Code
) -> None:
    """``let_in``: whether the first was; it may be the copy itself, that has just come."""
    monkeypatch.setattr(peers_module, "PROBE_S", WAIT_S)

    async def story() -> None:
        ca = Ca(tmp_path)
        a_credentials = ca.member(A)
        async with hosts(a_credentials, ca.member(B)) as (a, b):
            b.let_in = let_in
            await a.peers.dial([b.address], WAIT_S)
            copy = Host(a_credentials, started=7)
            with pytest.raises(PeerRefused, match="another host is alive") as caught:
                await copy.peers.dial([b.address], WAIT_S)
            assert caught.value.code == code
            a.peers.send(B, PeerKind.RAFT, b"undisturbed")
            await b.until_told("message", A, PeerKind.RAFT, b"undisturbed")
            assert b.told.count(("connected", A)) == 1

    run(story())


def test_a_connection_ends_with_the_certificate_that_it_was_made_with(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            ends = (await a.peers.dial([b.address], WAIT_S)).identity.not_after
            a.peers.end_outdated(ends - 1)
            assert B in a.peers.connected
            a.peers.end_outdated(ends)
            await b.until_told("closed", A, False)
            assert a.told[-1] == ("closed", B, False)

    run(story())


def test_connections_are_made_anew_with_a_renewed_certificate(tmp_path: Path) -> None:
    """The other side hears that nothing is wrong, and that nobody goes."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            first = await a.peers.dial([b.address], WAIT_S)
            at_b = b.peers.connected[A]
            assert (a.peers.outdated, b.peers.outdated) == ([], [])
            b.peers.use(ca.member(B, now=time.time() + 1000, name="renewed"))
            assert (a.peers.outdated, b.peers.outdated) == ([], [at_b])
            at_b.make_anew()
            await a.until_told("closed", B, True)
            assert b.told[-1] == ("closed", A, True)
            assert [(peer.is_made_anew, peer.dialled) for peer in (first, at_b)] == [(True, True), (True, False)]
            second = await a.peers.dial([b.address], WAIT_S)
            assert second.identity.not_after == pytest.approx(first.identity.not_after + 1000, abs=60)
            assert (a.peers.outdated, b.peers.outdated) == ([], [])
            a.peers.end_outdated(first.identity.not_after)
            assert B in a.peers.connected

    run(story())


def test_more_addresses_than_a_greeting_holds_are_cut(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            many = tuple(f"{number:x}".ljust(253, "x") + ":8081" for number in range(100))
            a.peers.addresses = b.peers.addresses = many
            assert (await a.peers.dial([b.address], WAIT_S)).words.addresses == many[:ADDRESSES_MAX]
            await b.until_told("connected", A)
            assert b.peers.connected[A].words.addresses == many[:ADDRESSES_MAX]

    run(story())


def test_each_address_is_tried_and_the_wrong_host_is_none(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        with socket.socket() as taken, socket.socket() as silent:
            taken.bind((LOCALHOST, 0))  # nobody listens there
            silent.bind((LOCALHOST, 0))
            silent.listen()  # somebody listens and never says a word
            deaf = [f"{LOCALHOST}:{sock.getsockname()[1]}" for sock in (taken, silent)]
            async with hosts(ca.member(A), ca.member(B), ca.member(C)) as (a, b, c):
                peer = await a.peers.dial([*deaf, "nonsense:0", a.address, c.address, b.address], WAIT_S, B)
                assert peer.node == B
                await b.until_told("connected", A)
                assert c.told == []

    run(story())


def test_a_dial_ends_in_time_and_says_what_it_tried(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        with socket.socket() as silent, socket.socket() as taken:
            silent.bind((LOCALHOST, 0))
            silent.listen()
            taken.bind((LOCALHOST, 0))
            address = f"{LOCALHOST}:{silent.getsockname()[1]}"
            async with hosts(ca.member(A)) as (a,):
                with pytest.raises(NodeUnreachable, match=rf"no connection within 300 ms \(tried {address}\)"):
                    await a.peers.dial([address], 0.3)
                nobody = f"{LOCALHOST}:{taken.getsockname()[1]}"
                with pytest.raises(NodeUnreachable, match=f"{nobody}: .*"):
                    await a.peers.dial([nobody], WAIT_S)
                with pytest.raises(NodeUnreachable, match="there is no address"):
                    await a.peers.dial([], WAIT_S)

    run(story())


def test_a_taken_port_is_an_error_or_the_next_one_is_taken(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            port = int(a.address.rpartition(":")[2])
            with pytest.raises(ConfigError, match=f"port {port} cannot be opened on {LOCALHOST}"):
                await b.peers.listen([LOCALHOST], port)
            moved = await b.peers.listen([LOCALHOST], port, may_move=True)
            assert port < moved <= port + 64
            assert (await a.peers.dial([f"{LOCALHOST}:{moved}"], WAIT_S)).node == B

    run(story())


async def _accepting(credentials: Credentials) -> tuple[Wire, int]:
    """A port behind which the test itself answers, with these credentials."""
    loop, wire = asyncio.get_running_loop(), Wire()
    context = tls.accepting(credentials)
    server = await loop.create_server(lambda: Link(loop, wire, context, accepted=True), LOCALHOST, 0)
    return wire, server.sockets[0].getsockname()[1]
