"""One link, without a network where that can be: bytes one by one, peers that do not read, owners that fail."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from abi.errors import AbiError, ProtocolError
from abi.wire.frames import FRAME_BYTES_MAX
from abi.wire.peers import PeerKind, Refused, decode
from abid.cluster import link as link_module
from abid.cluster import tls
from abid.cluster.link import Link, Owner, State
from abid.cluster.refusal import TEXT_CHARS_MAX, Code, said
from tests.daemon.cluster.hosts import WAIT_S, Ca, Wire, hosts, run

A, B = "0000000a", "0000000b"


class Cable:
    """A transport that keeps what is sent until the test carries it over."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def get_extra_info(self, name: str) -> Any:
        return ("203.0.113.7", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write_eof(self) -> None: ...

    def abort(self) -> None:
        self.closed = True


class Noting(Owner):
    """Notes what it is told; ``fault`` is raised at each frame."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.ended: list[AbiError | None] = []
        self._fault = fault

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        if self._fault is not None:
            raise self._fault
        self.frames.append((kind, bytes(payload)))

    def on_ended(self, link: Link, why: AbiError | None) -> None:
        self.ended.append(why)


class Pair:
    """Two links and the cables between them, in the hands of a test."""

    def __init__(self, ca: Ca, server: Owner, client: Owner) -> None:
        loop = asyncio.get_running_loop()
        self.accepted = Link(loop, server, tls.accepting(ca.member(A)), accepted=True)
        self.dialled = Link(loop, client, tls.member(ca.member(B)), accepted=False)
        self.cables = {self.accepted: Cable(), self.dialled: Cable()}
        for link, cable in self.cables.items():
            link.connection_made(cast("asyncio.Transport", cable))
        self.dialled.begin()

    async def carry(self, piece: int) -> None:
        """All that is under way, so many bytes at a time, until nobody has more to say."""
        ways = [(self.dialled, self.accepted), (self.accepted, self.dialled)]
        while any(self.cables[link].sent or link._step for link in self.cables):
            for link in self.cables:
                await self._while_busy(link)
            for source, target in ways:
                data, self.cables[source].sent = bytes(self.cables[source].sent), bytearray()
                for at in range(0, len(data), piece):
                    await self._while_busy(target)
                    target.data_received(data[at : at + piece])

    async def _while_busy(self, link: Link) -> None:
        """It shakes hands and does not read."""
        while link._step is not None:
            await asyncio.wait([link._step])
            await asyncio.sleep(0)  # it hears of it after us


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_bytes_may_come_in_any_pieces(tmp_path: Path, piece: int) -> None:
    async def story() -> None:
        server, client = Noting(), Noting()
        pair = Pair(Ca(tmp_path), server, client)
        await pair.carry(piece)
        assert (pair.accepted.state, pair.dialled.state) == (State.OPEN, State.OPEN)
        assert pair.accepted.identity is not None
        assert pair.dialled.identity is not None
        assert (pair.accepted.identity.node, pair.dialled.identity.node) == (B, A)
        assert repr(pair.accepted) == "<link with node 0000000b at 203.0.113.7: open>"
        for number in range(5):
            pair.dialled.send_payload(PeerKind.RAFT, bytes([number]) * 1000)
            pair.accepted.send_payload(PeerKind.GOSSIP, b"")
        await pair.carry(piece)
        assert server.frames == [(PeerKind.RAFT, bytes([number]) * 1000) for number in range(5)]
        assert client.frames == [(PeerKind.GOSSIP, b"")] * 5
        pair.dialled.close()
        await pair.carry(piece)
        assert (server.ended, client.ended) == ([None], [None])

    run(story())


def test_one_flipped_bit_ends_the_link_and_nothing_of_it_is_believed(tmp_path: Path) -> None:
    async def story() -> None:
        server, client = Noting(), Noting()
        pair = Pair(Ca(tmp_path), server, client)
        await pair.carry(1 << 20)
        pair.dialled.send_payload(PeerKind.RAFT, b"x" * 100)
        pair.cables[pair.dialled].sent[50] ^= 1
        await pair.carry(1 << 20)
        assert server.frames == []
        assert [why and why.code for why in server.ended] == [Code.TLS]

    run(story())


def test_a_fault_of_ours_costs_one_peer_its_connection(tmp_path: Path) -> None:
    async def story() -> None:
        for fault, code in [(ZeroDivisionError("a bug"), "protocol"), (AbiError("no", code="why"), "why")]:
            server, client = Noting(fault), Noting()
            pair = Pair(Ca(tmp_path / code), server, client)
            await pair.carry(1 << 20)
            pair.dialled.send_payload(PeerKind.RAFT, b"")
            await pair.carry(1 << 20)
            assert pair.accepted.state is pair.dialled.state is State.ENDED
            assert [(kind, decode(kind, payload).code) for kind, payload in client.frames] == [(PeerKind.REFUSED, code)]
            assert "a bug" not in str(client.frames)

    run(story())


def test_what_is_sent_over_a_link_that_has_ended_is_dropped(tmp_path: Path) -> None:
    async def story() -> None:
        server, client = Noting(), Noting()
        pair = Pair(Ca(tmp_path), server, client)
        pair.dialled.send_payload(PeerKind.RAFT, b"too early")
        await pair.carry(1 << 20)
        pair.dialled.close()
        pair.dialled.close()
        pair.dialled.refuse(AbiError("too late"))
        pair.dialled.send_payload(PeerKind.RAFT, b"too late")
        with pytest.raises(ProtocolError):
            pair.dialled.send_payload(PeerKind.RAFT, bytes(FRAME_BYTES_MAX + 1))
        await pair.carry(1 << 20)
        assert server.frames == []
        assert (server.ended, client.ended) == ([None], [None])

    run(story())


def test_a_peer_that_does_not_read_loses_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "QUEUED_BYTES_MAX", 1 << 20)

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member("0000000c")) as (a, c):
            await c.peers.dial([a.address], WAIT_S)
            await a.until_told("connected", "0000000c")
            reading = c.peers.connected[A]._link._transport
            assert reading is not None
            reading.pause_reading()
            peer = a.peers.connected["0000000c"]
            sent = 0
            while a.peers.send("0000000c", PeerKind.GOSSIP, bytes(1 << 18)):
                sent += 1
                assert peer.queued <= 1 << 20
                await asyncio.sleep(0)
            assert ("closed", "0000000c", False) in a.told
            assert peer.why is not None
            assert "does not read" in peer.why.message
            assert sent >= 4

    run(story())


def test_what_the_other_side_gives_as_its_reason_is_shown_short_and_plain() -> None:
    error = said(Refused("a_code", "red\x1b[31m\nand " + "long " * 1000, "\x00hint"))
    assert error.message.startswith("red[31mand long")
    assert len(error.message) == TEXT_CHARS_MAX
    assert (error.code, error.hint) == ("a_code", "hint")


def test_a_connection_needs_no_library_that_makes_certificates(tmp_path: Path) -> None:
    """Two daemons shake hands, greet and speak; ``cryptography`` is not loaded for it."""
    ca = Ca(tmp_path)
    folders = [str(ca.member(node).folder) for node in (A, B)]
    code = """
import asyncio, sys
from pathlib import Path
from abid.cluster import credentials
from abid.cluster.peers import Peers

class Silent:
    def on_connected(self, peer): pass
    def on_message(self, peer, kind, payload): pass
    def on_closed(self, peer, orderly): pass
    def on_stranger(self, stranger, message): pass
    def is_revoked(self, node): return False
    def on_copy(self, twin, address): pass
    def on_stray(self, subject): pass
    def has_left(self, node): return False
    def was_there(self, node, within_s): return False

async def story():
    loop = asyncio.get_running_loop()
    a, b = (Peers(loop, Silent(), credentials.load(Path(folder)), 1) for folder in sys.argv[1:])
    port = await b.listen(["127.0.0.1"], 0)
    print((await a.dial([f"127.0.0.1:{port}"], 20)).node)
    a.close()
    b.close()

asyncio.run(story())
print("cryptography" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [B, "False"]


def test_sessions_are_not_resumed(tmp_path: Path) -> None:
    """A session that is resumed does not show its certificate again; nobody is given a ticket for one."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            wire = Wire()
            link = await wire.dial(a.address, tls.member(ca.member(B)))
            await wire.secured
            link.send_payload(PeerKind.RAFT, b"")  # it is refused: by then a ticket would have come
            assert (await wire.frame())[0] == PeerKind.REFUSED
            assert link._tls is not None
            session = link._tls.session
            assert session is None or not session.has_ticket
            assert link._tls.version() == "TLSv1.3"

    run(story())


def test_contexts_believe_nothing_but_the_authority(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    credentials = ca.member(A)
    for context in (tls.accepting(credentials), tls.member(credentials), tls.newcomer(ca.authority.certificate)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}
    assert tls.accepting(credentials).verify_mode is ssl.CERT_OPTIONAL
    assert tls.member(credentials).verify_mode is ssl.CERT_REQUIRED
    assert tls.newcomer(ca.authority.certificate).verify_mode is ssl.CERT_REQUIRED
