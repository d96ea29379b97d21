"""What daemons say to each other, and what a host says that wants to become a member.

The envelope is that of ``frames``, inside TLS; the payload of each kind is one msgpack array (``MESSAGES``), which may
grow at its end with a protocol's minor version. What another room owns is opaque here: Raft's messages and those of
membership are bytes that travel.

A connection is of one of two sorts. A *member* has shown a certificate of the cluster: HELLO, answered by WELCOME or
REFUSED, then anything. A *stranger* has shown none and may say one message, ASK_AUTHORITY, JOIN or RENEW, which is
answered by one.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from abi.errors import ProtocolError

PEER_PROTOCOL: Final = (1, 0)
"""Major and minor between daemons. A daemon accepts its own major with any minor and refuses another by name."""
STRANGER_BYTES_MAX: Final = 4096
"""Before a peer has said who it is: what JOIN takes with a dozen addresses, and nothing that could burden us."""
ADDRESSES_MAX: Final = 12
"""Of one host: more than it has that a peer could reach it by, and the longest twelve fit into one message."""


class PeerKind(enum.IntEnum):
    """What a frame between daemons carries. Numbers are for ever, and none is also a ``schema.Kind``, so that a frame
    that strayed is nowhere taken for another."""

    HELLO = 128
    WELCOME = 129
    REFUSED = 130
    GOODBYE = 131
    """The sender ends this connection on purpose; without it, the end is a sign of trouble. No payload."""
    PING = 132
    PONG = 133
    ANEW = 134
    """The sender ends this connection to make another one, with the certificate that it has by now. No payload."""
    # A stranger and a member.
    ASK_AUTHORITY = 144
    AUTHORITY = 145
    JOIN = 146
    ADMITTED = 147
    RENEW = 148
    RENEWED = 149
    # Members.
    RAFT = 160
    """A msgpack list of ``abid.core.raft.messages.Message``."""
    GOSSIP = 161
    REQUEST = 162
    RESPONSE = 163


Node = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}\Z")]
"""A host's id in hex."""
Cluster = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Version = Annotated[str, msgspec.Meta(max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Addresses = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=262)], ...], msgspec.Meta(max_length=ADDRESSES_MAX)]
"""``host:port``, ``[v6]:port``; a host name has 255 characters at most."""


class PeerMessage(msgspec.Struct, array_like=True):
    """The payload of a frame."""


class Greeting(PeerMessage):
    """HELLO and WELCOME. The protocol stands in front, where also a release that changes all the rest will find it."""

    protocol: tuple[int, int]
    cluster: Cluster
    incarnation: Count
    """Of the cluster: another one when it is founded again after a loss of its majority (``incarnations``)."""
    node: Node
    started: Count
    """How often this daemon has started: a later life of a host can be told from an earlier one."""
    moment: Count
    """Greetings that this life of the daemon has sent before: of two connections, which one was greeted on later."""
    version: Version
    addresses: Addresses = ()
    """Where it listens."""
    features: tuple[Version, ...] = ()
    life: Count = 0
    """Drawn when this host began to take part: of hosts with one identity each has another."""


class Refused(PeerMessage):
    """Why a connection is ended, by name, in words, and what to do."""

    code: str
    message: str
    hint: str = ""


class Ping(PeerMessage):
    """PING and PONG."""

    number: int


class AskAuthority(PeerMessage):
    """What is the certificate of your cluster's authority? Asked before anything is believed: the answer is held
    against the fingerprint in the token."""


class AuthorityAnswer(PeerMessage):
    certificate: bytes
    """DER."""


class Join(PeerMessage):
    """Said only to who has shown a certificate of the authority that the token names. Like a greeting it begins with
    the protocol."""

    protocol: tuple[int, int]
    cluster: Cluster
    token: str
    secret: bytes
    node: Node
    started: Count
    version: Version
    name: Annotated[str, msgspec.Meta(max_length=255)]
    request: bytes
    """The certificate request (PKCS #10, DER), signed by the new key."""
    addresses: Addresses = ()


class Renew(PeerMessage):
    """On a member's own connection only ``request`` is needed. A stranger whose certificate ran out shows that
    certificate and, by ``proof``, that it has its key."""

    request: bytes
    certificate: bytes = b""
    """DER."""
    proof: bytes = b""


class Renewed(PeerMessage):
    certificate: bytes
    """DER."""


class Admitted(PeerMessage):
    """What a new member is given."""

    certificate: bytes
    """Its own, DER."""
    secret: bytes
    """The cluster's, from which the key of its beacons is derived."""
    incarnation: Count
    number: Count = 0
    """Raft's for this member."""
    addresses: tuple[tuple[str, ...], ...] = ()
    """Of members, one entry for each."""


class Request(PeerMessage):
    """Asked of a member; the answer carries the same number."""

    number: int
    verb: str
    body: dict[str, Any] = {}
    """Of what JSON can say."""


class Response(PeerMessage):
    number: int
    body: dict[str, Any] = {}
    refused: Refused | None = None


class Opening(PeerMessage):
    """The part of HELLO, WELCOME and JOIN that every protocol will have."""

    protocol: tuple[int, int]


MESSAGES: Final[dict[PeerKind, type[PeerMessage]]] = {
    PeerKind.HELLO: Greeting,
    PeerKind.WELCOME: Greeting,
    PeerKind.REFUSED: Refused,
    PeerKind.PING: Ping,
    PeerKind.PONG: Ping,
    PeerKind.ASK_AUTHORITY: AskAuthority,
    PeerKind.AUTHORITY: AuthorityAnswer,
    PeerKind.JOIN: Join,
    PeerKind.ADMITTED: Admitted,
    PeerKind.RENEW: Renew,
    PeerKind.RENEWED: Renewed,
    PeerKind.REQUEST: Request,
    PeerKind.RESPONSE: Response,
}
"""What has no entry is opaque, or empty."""

encode: Final = msgspec.msgpack.Encoder().encode
_decoders: Final = {int(kind): msgspec.msgpack.Decoder(message).decode for kind, message in MESSAGES.items()}
_decode_opening: Final = msgspec.msgpack.Decoder(Opening).decode


def decode(kind: int, payload: bytes | memoryview) -> Any:
    """The message of a frame. Raises ProtocolError for a kind that has none and for bytes that are not it."""
    decoder = _decoders.get(kind)
    if decoder is None:
        raise ProtocolError(f"a frame of kind {kind} has no place here")
    try:
        return decoder(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise ProtocolError(f"a frame of kind {PeerKind(kind).name} does not decode: {error}") from None


def protocol_of(payload: bytes | memoryview) -> tuple[int, int]:
    """Of a greeting, whatever else its release put into it. Raises ProtocolError."""
    try:
        return _decode_opening(payload).protocol
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise ProtocolError(f"a greeting does not decode: {error}") from None
