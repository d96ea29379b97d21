"""Who is not spoken with, by name on both sides, while a connection of members goes on undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from abi.errors import NodeUnreachable
from abi.wire.frames import HEADER, MSGPACK
from abi.wire.peers import PEER_PROTOCOL, STRANGER_BYTES_MAX, Greeting, Join, PeerKind, Renew, decode, encode
from abid.cluster import strangers, tls
from abid.cluster.authority import BACKDATE_S, CERTIFICATE_S
from abid.cluster.credentials import Credentials
from abid.cluster.link import State
from abid.cluster.refusal import Code, PeerRefused, Said
from tests.daemon.cluster.hosts import CLUSTER, LOCALHOST, WAIT_S, Ca, Host, Wire, client_hello, hosts, run

A, B, C = "0000000a", "0000000b", "0000000c"
OTHER_CLUSTER = "c1a57e5000000002"


@contextlib.asynccontextmanager
async def undisturbed(a: Host, b: Host) -> AsyncIterator[None]:
    """What happens inside does not touch the connection between the two, which stays the same one."""
    before = await a.peers.dial([b.address], WAIT_S)
    yield
    assert a.peers.connected[B] is before
    a.peers.send(B, PeerKind.RAFT, b"undisturbed")
    await b.until_told("message", A, PeerKind.RAFT, b"undisturbed")
    heard = {told[:2] for told in a.told + b.told if told[0] not in ("message", "stray")}
    assert heard == {("connected", A), ("connected", B)}


async def refused(host: Host, address: str) -> PeerRefused:
    """What a dial is refused with."""
    with pytest.raises(PeerRefused) as caught:
        await host.peers.dial([address], WAIT_S)
    return caught.value


async def words(wire: Wire) -> tuple[str, str]:
    """Code and message of the refusal that comes next."""
    kind, payload = await wire.frame()
    assert kind == PeerKind.REFUSED
    message = decode(kind, payload)
    return message.code, message.message


async def counted(host: Host, code: str, count: int = 1) -> None:
    """The refusal is known to the host itself."""
    async with asyncio.timeout(WAIT_S):
        while host.peers.refusals[code] < count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
    assert host.peers.refusals == {code: count}


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    """A host of another cluster, one way and the other."""

    async def story() -> None:
        ca, foreign = Ca(tmp_path), Ca(tmp_path / "foreign", OTHER_CLUSTER)
        async with hosts(ca.member(A), ca.member(B), foreign.member(C)) as (a, b, c), undisturbed(a, b):
            assert (await refused(c, b.address)).code == Code.WRONG_CA
            assert (await refused(b, c.address)).code == Code.WRONG_CA
            await counted(b, Code.WRONG_CA)
            await counted(c, Code.WRONG_CA)

    run(story())


def test_who_does_not_verify_is_refused_all_the_same(tmp_path: Path) -> None:
    """An impostor with a certificate for the right name, by an authority of its own, that believes everybody."""

    async def story() -> None:
        ca, forged = Ca(tmp_path), Ca(tmp_path / "forged")
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            context = tls.unverified()
            context.load_cert_chain(forged.member(C).member_path)
            wire = Wire()
            await wire.dial(b.address, context)
            assert (await wire.ended).code == Code.WRONG_CA
            await counted(b, Code.WRONG_CA)

    run(story())


@pytest.mark.parametrize("age_s", [CERTIFICATE_S, -BACKDATE_S - 3600], ids=["ended", "not begun"])
def test_a_certificate_out_of_its_time_is_refused(tmp_path: Path, age_s: float) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        outdated = ca.member(C, now=time.time() - age_s - 60 if age_s > 0 else time.time() - age_s)
        async with hosts(ca.member(A), ca.member(B), outdated) as (a, b, c), undisturbed(a, b):
            context = tls.unverified()
            context.load_cert_chain(outdated.member_path)
            wire = Wire()
            await wire.dial(b.address, context)
            await wire.ended
            await counted(b, Code.EXPIRED)
            assert (await refused(a, c.address)).code == Code.EXPIRED

    run(story())


def test_who_was_removed_is_refused_before_its_first_frame(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        removed = ca.member(C)
        async with hosts(ca.member(A), ca.member(B), removed) as (a, b, c):
            b.revoked.add(C)
            async with undisturbed(a, b):
                error = await refused(c, b.address)
                assert (error.code, error.message) == (Code.REVOKED, f"node {C} was removed from the cluster")
                assert error.hint
                assert isinstance(error, Said)
                ours = await refused(b, c.address)
                assert (ours.code, isinstance(ours, Said)) == (Code.REVOKED, False), "it is not b that was removed"
                await counted(b, Code.REVOKED)
                wire = Wire()  # it is told so although it has said nothing at all
                await wire.dial(b.address, tls.member(removed))
                assert (await words(wire))[0] == Code.REVOKED

    run(story())


def test_who_is_removed_loses_the_connection_that_it_has(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B), ca.member(C)) as (a, b, c), undisturbed(a, b):
            peer = await c.peers.dial([b.address], WAIT_S)
            await b.until_told("connected", C)
            b.revoked.add(C)
            b.peers.revoke(C)
            await c.until_told("closed", B, False)
            assert peer.why is not None
            assert peer.why.code == Code.REVOKED
            b.told = [told for told in b.told if C not in told]

    run(story())


def test_another_cluster_of_the_same_authority_is_refused(tmp_path: Path) -> None:
    """Nothing makes such a certificate; it is refused, should somebody."""

    async def story() -> None:
        ca = Ca(tmp_path)
        ca.authority.cluster = OTHER_CLUSTER
        other = ca.member(C)
        ca.authority.cluster = CLUSTER
        async with hosts(ca.member(A), ca.member(B), other) as (a, b, c), undisturbed(a, b):
            assert (await refused(c, b.address)).code == Code.OTHER_CLUSTER
            wire = Wire()
            await wire.dial(b.address, tls.member(other))
            assert await words(wire) == (
                Code.OTHER_CLUSTER,
                f"one side is of cluster {CLUSTER}, the other of {OTHER_CLUSTER}",
            )
            await counted(b, Code.OTHER_CLUSTER, 2)

    run(story())


def test_another_incarnation_is_refused(tmp_path: Path) -> None:
    """What ``abi cluster recover`` left behind, by its certificate and by its words."""

    async def story() -> None:
        ca = Ca(tmp_path)
        old, present = ca.member(C, incarnation=1), ca.member(C, incarnation=2)
        async with hosts(ca.member(A, 2), ca.member(B, 2), old) as (a, b, c), undisturbed(a, b):
            error = await refused(c, b.address)
            assert (error.code, bool(error.hint)) == (Code.OTHER_INCARNATION, True)
            assert (await refused(b, c.address)).code == Code.OTHER_INCARNATION
            wire = await greeting(b, present, incarnation=1)
            assert (await words(wire))[0] == Code.OTHER_INCARNATION
            await counted(b, Code.OTHER_INCARNATION, 2)
            assert ("stray", C, 1) in b.told

    run(story())


async def greeting(host: Host, credentials: Credentials, **other: object) -> Wire:
    """A member that greets with words that are not its own."""
    wire = Wire()
    link = await wire.dial(host.address, tls.member(credentials))
    await wire.secured
    us = credentials.subject
    honest = Greeting(PEER_PROTOCOL, us.cluster, us.incarnation, us.node, 1, 1, "0.1.0")
    link.send(PeerKind.HELLO, msgspec.structs.replace(honest, **other))
    return wire


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"protocol": (2, 0)}, Code.VERSION),
        ({"cluster": OTHER_CLUSTER}, Code.OTHER_CLUSTER),
        ({"node": A}, Code.PROTOCOL),
        ({"node": "not hex!"}, Code.PROTOCOL),
        ({"started": -1}, Code.PROTOCOL),
        ({"addresses": ("x",) * 100}, Code.PROTOCOL),
    ],
)
def test_a_greeting_that_cannot_be_is_refused(tmp_path: Path, other: dict[str, object], code: str) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            wire = await greeting(b, ca.member(C), **other)
            assert (await words(wire))[0] == code
            await wire.ended
            await counted(b, code)

    run(story())


def test_a_newer_major_is_refused_by_its_number_whatever_else_it_says(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            wire = Wire()
            link = await wire.dial(b.address, tls.member(ca.member(C)))
            await wire.secured
            link.send_payload(PeerKind.HELLO, msgspec.msgpack.encode([[2, 7], {"all": "else"}, None]))
            assert await words(wire) == (Code.VERSION, "one side speaks protocol 1, the other protocol 2")

    run(story())


def test_a_newer_minor_is_understood(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        us = ca.member(C)
        async with hosts(ca.member(B)) as (b,):
            wire = Wire()
            link = await wire.dial(b.address, tls.member(us))
            await wire.secured
            newer = [[1, 9], CLUSTER, 1, C, 1, 1, "9.9", ["h:1"], ["a feature"], 7, {"what": "we do not know"}]
            link.send_payload(PeerKind.HELLO, msgspec.msgpack.encode(newer))
            assert (await wire.frame())[0] == PeerKind.WELCOME
            await b.until_told("connected", C)
            assert b.peers.connected[C].words.protocol == (1, 9)

    run(story())


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(8), b"SSH-2.0-x\r\n"])
def test_plain_text_is_refused(tmp_path: Path, said: bytes) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            assert await _exchange(b.address, said) == b""
            await counted(b, Code.PLAIN_TEXT)

    run(story())


def test_a_port_that_speaks_plain_text_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)

        def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example.org ESMTP\r\n")

        server = await asyncio.start_server(on_connection, LOCALHOST, 0)
        async with hosts(ca.member(A)) as (a,):
            error = await refused(a, f"{LOCALHOST}:{server.sockets[0].getsockname()[1]}")
            assert error.code == Code.PLAIN_TEXT
        server.close()

    run(story())


def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            wire = Wire()
            await wire.dial(b.address, context)
            assert (await wire.ended).code == Code.TLS
            await counted(b, Code.TLS)

    run(story())


@pytest.mark.parametrize("is_member", [True, False], ids=["member", "stranger"])
@pytest.mark.parametrize("length", [STRANGER_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_before_the_greeting_is_small(tmp_path: Path, is_member: bool, length: int) -> None:
    """It is refused by its length, before a byte of it has come."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            wire = Wire()
            context = tls.member(ca.member(C)) if is_member else tls.unverified()
            link = await wire.dial(b.address, context)
            await wire.secured
            assert link._tls is not None
            link._tls.write(HEADER.pack(length, PeerKind.HELLO if is_member else PeerKind.JOIN, MSGPACK, 0))
            link._flush()
            assert (await words(wire))[0] == Code.OVERSIZED
            await counted(b, Code.OVERSIZED)

    run(story())


def test_a_frame_of_the_largest_size_before_the_greeting_is_read(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(B)) as (b,):
            wire = Wire()
            link = await wire.dial(b.address, tls.unverified())
            await wire.secured
            join = Join(PEER_PROTOCOL, CLUSTER, "t", b"", A, 1, "0", "n", b"")
            join.request = bytes(STRANGER_BYTES_MAX - len(encode(join)) - 1)  # one more byte says how long it is
            assert len(encode(join)) == STRANGER_BYTES_MAX
            link.send(PeerKind.JOIN, join)
            await b.until(lambda: b.told)
            assert b.told[0] == ("stranger", join)

    run(story())


@pytest.mark.parametrize(
    "kind", [PeerKind.HELLO, PeerKind.RAFT, PeerKind.REQUEST, PeerKind.GOSSIP, PeerKind.GOODBYE, 255]
)
def test_a_stranger_may_not_say_what_members_say(tmp_path: Path, kind: int) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            wire = Wire()
            link = await wire.dial(b.address, tls.unverified())
            await wire.secured
            link.send_payload(kind, b"")
            assert (await words(wire))[0] == Code.NO_CERTIFICATE
            await counted(b, Code.NO_CERTIFICATE)

    run(story())


def test_a_stranger_says_one_message(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            await a.peers.dial([b.address], WAIT_S)
            wire = Wire()
            link = await wire.dial(b.address, tls.unverified())
            await wire.secured
            for _ in range(2):
                link.send(PeerKind.RENEW, Renew(b"request"))
            assert await words(wire) == (Code.PROTOCOL, "a stranger may say one message")
            assert [told[0] for told in b.told] == ["connected", "stranger"]

    run(story())


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(PeerKind.PING, b"\xc1"), (PeerKind.HELLO, b""), (PeerKind.JOIN, b""), (PeerKind.ADMITTED, b"")],
)
def test_what_has_no_place_after_the_greeting_ends_the_connection(
    tmp_path: Path, kind: PeerKind, payload: bytes
) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B), ca.member(C)) as (a, b, c), undisturbed(a, b):
            peer = await c.peers.dial([b.address], WAIT_S)
            peer.send(kind, payload)
            await b.until_told("closed", C, False)
            await c.until_told("closed", B, False)
            assert peer.why is not None
            assert peer.why.code == "protocol"
            b.told = [told for told in b.told if C not in told]

    run(story())


def test_who_says_nothing_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each stage: not a byte, half a handshake, TLS and no greeting."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            monkeypatch.setattr(strangers, "GREETING_S", 0.2)
            assert await _exchange(b.address, b"") == b""
            assert await _exchange(b.address, client_hello()[:100]) == b""
            # A handshake takes as long as the machine likes: the time is over when it is up, and not before.
            monkeypatch.setattr(strangers, "GREETING_S", WAIT_S)
            wire, knocking = Wire(), b.peers._door.strangers
            await wire.dial(b.address, tls.member(ca.member(C)))
            async with asyncio.timeout(WAIT_S):
                while not (links := [link for link in knocking._timers if link.state is State.OPEN]):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
            knocking._on_silence(links[0])
            assert (await words(wire))[0] == Code.SILENT
            await counted(b, Code.SILENT, 3)

    run(story())


def test_the_host_itself_is_no_peer(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            assert (await refused(a, a.address)).code == Code.ITSELF
            assert a.told == []

    run(story())


def test_where_one_address_leads_nowhere_and_one_back_nobody_answers(tmp_path: Path) -> None:
    """Ports change hands, and members are asked again."""

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A)) as (a,):
            with socket.create_server((LOCALHOST, 0)) as gone:
                nowhere = f"{LOCALHOST}:{gone.getsockname()[1]}"
            with pytest.raises(NodeUnreachable, match="back to the host itself"):
                await a.peers.dial([nowhere, a.address], WAIT_S, B)

    run(story())


async def _exchange(address: str, said: bytes, source: str = LOCALHOST) -> bytes:
    """What a plain socket hears until its end."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
    writer.write(said)
    try:
        async with asyncio.timeout(WAIT_S):
            return await reader.read()
    except ConnectionError:  # by reading, or by a write that came too late
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_who_goes_while_it_waits_for_its_turn_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reset: bool
) -> None:
    """It takes no turn and no room: else who knocks and runs away would hold up the door for seconds."""
    monkeypatch.setattr(strangers, "GREETING_S", 3 * WAIT_S)

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b), undisturbed(a, b):
            knocking = b.peers._door.strangers
            knocking._bucket = strangers.Bucket(per_s=1, at_once=0, now=0.0)  # there is never a turn
            waiting = knocking._others._waiting
            _, writer = await asyncio.open_connection(*b.address.split(":"))
            writer.write(client_hello())
            async with asyncio.timeout(WAIT_S):
                while not waiting:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0)
                (link,) = waiting[strangers.source_of(LOCALHOST)]
                if is_reset:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.close()
                while len(b.peers.door.strangers):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert link.state is State.ENDED
            assert link._tls is None, "no handshake began"
            assert not b.peers.refusals

    run(story())


def test_a_thousand_slow_handshakes_disturb_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one address, half of them silent and half after their first bytes. A member comes in among them."""
    monkeypatch.setattr(strangers, "GREETING_S", 3 * WAIT_S)

    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B), ca.member(C)) as (a, b, c), undisturbed(a, b):
            port, first = int(b.address.rpartition(":")[2]), client_hello()
            slow = []
            most = 0
            for number in range(1000):
                sock = socket.socket()
                sock.setblocking(False)
                sock.bind(("127.0.1.2", 0))  # another network than the member's
                await asyncio.get_running_loop().sock_connect(sock, (LOCALHOST, port))
                if number % 2:
                    sock.send(first[: 1 + number % len(first)])
                slow.append(sock)
                most = max(most, len(b.peers.door.strangers))
                if number == 500:
                    assert (await c.peers.dial([b.address], WAIT_S)).node == B
            assert most <= strangers.STRANGERS_MAX
            assert b.peers.refusals.keys() == {Code.BUSY}
            assert b.peers.refusals[Code.BUSY] >= 1000 - strangers.STRANGERS_MAX - 1
            for sock in slow:
                sock.close()
            b.told = [told for told in b.told if C not in told]

    run(story())
