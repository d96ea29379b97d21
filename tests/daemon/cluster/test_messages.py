"""What daemons say to each other: each message comes back as it was, and no bytes do worse than an error."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.errors import ProtocolError
from abi.wire import schema
from abi.wire.peers import (
    MESSAGES,
    PEER_PROTOCOL,
    STRANGER_BYTES_MAX,
    Admitted,
    AskAuthority,
    AuthorityAnswer,
    Greeting,
    Join,
    PeerKind,
    PeerMessage,
    Ping,
    Refused,
    Renew,
    Renewed,
    Request,
    Response,
    decode,
    encode,
    protocol_of,
)

CLUSTER, NODE = "c1a57e5000000001", "0000000a"
LONGEST = "x" * 253 + ":65535"
GREETING = Greeting(PEER_PROTOCOL, CLUSTER, 1, NODE, 2, 3, "0.1.0", (LONGEST,) * 12, ("a",))
JOIN = Join(PEER_PROTOCOL, CLUSTER, "0a0b0c0d", bytes(16), NODE, 1, "0.1.0", "n" * 255, bytes(300), (LONGEST,) * 12)
EXAMPLES: list[tuple[PeerKind, PeerMessage]] = [
    (PeerKind.HELLO, GREETING),
    (PeerKind.WELCOME, GREETING),
    (PeerKind.REFUSED, Refused("code", "message", "hint")),
    (PeerKind.PING, Ping(7)),
    (PeerKind.PONG, Ping(7)),
    (PeerKind.ASK_AUTHORITY, AskAuthority()),
    (PeerKind.AUTHORITY, AuthorityAnswer(b"der")),
    (PeerKind.JOIN, JOIN),
    (PeerKind.ADMITTED, Admitted(b"der", bytes(32), 2, 7, (("h:1", "i:2"), ("j:3",)))),
    (PeerKind.RENEW, Renew(b"request", b"certificate", b"proof")),
    (PeerKind.RENEWED, Renewed(b"der")),
    (PeerKind.REQUEST, Request(1, "verb", {"a": [1, 2.5, None, True, {"b": "c"}]})),
    (PeerKind.RESPONSE, Response(1, {}, Refused("code", "message"))),
]


def test_there_is_an_example_of_each_message() -> None:
    assert {kind for kind, _ in EXAMPLES} == set(MESSAGES)


@pytest.mark.parametrize(("kind", "message"), EXAMPLES, ids=[kind.name for kind, _ in EXAMPLES])
def test_a_message_comes_back_as_it_was(kind: PeerKind, message: PeerMessage) -> None:
    assert decode(kind, encode(message)) == message


@pytest.mark.parametrize(("kind", "message"), EXAMPLES, ids=[kind.name for kind, _ in EXAMPLES])
def test_a_newer_minor_may_say_more(kind: PeerKind, message: PeerMessage) -> None:
    """At the end of the array, after all that this one knows."""
    known = msgspec.msgpack.decode(encode(message))
    assert len(known) == len(message.__struct_fields__)
    assert decode(kind, msgspec.msgpack.encode([*known, {"what": "is new"}])) == message


@pytest.mark.parametrize("message", [GREETING, JOIN], ids=["greeting", "join"])
def test_the_largest_that_we_say_before_we_are_known_is_heard(message: PeerMessage) -> None:
    assert len(encode(message)) <= STRANGER_BYTES_MAX


@pytest.mark.parametrize("kind", sorted(MESSAGES))
@given(data=st.binary(max_size=300))
def test_no_bytes_do_worse_than_an_error(kind: PeerKind, data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode(kind, data), MESSAGES[kind])
    with contextlib.suppress(ProtocolError):
        protocol_of(data)


@pytest.mark.parametrize(("kind", "message"), EXAMPLES, ids=[kind.name for kind, _ in EXAMPLES])
def test_what_is_cut_off_is_an_error(kind: PeerKind, message: PeerMessage) -> None:
    data = encode(message)
    for length in range(len(data)):
        with pytest.raises(ProtocolError, match="does not decode"):
            decode(kind, data[:length])


def test_what_goes_deep_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        decode(PeerKind.REQUEST, b"\x93\x01\xa1v\x81\xa1a" + b"\x91" * 100_000)


@pytest.mark.parametrize("kind", [0, 1, PeerKind.RAFT, PeerKind.GOSSIP, PeerKind.GOODBYE, 255])
def test_a_kind_without_a_message_is_an_error(kind: int) -> None:
    with pytest.raises(ProtocolError, match=f"kind {int(kind)} has no place here"):
        decode(kind, b"\x90")


def test_no_kind_between_daemons_is_also_one_of_a_daemon_and_its_clients() -> None:
    assert not {int(kind) for kind in PeerKind} & {int(kind) for kind in schema.Kind}
