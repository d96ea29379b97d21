"""What members say to each other about who is alive, and its form on the wire.

Every message carries the sender's own incarnation, which is first-hand word that it lives, and rumours. Incarnations
order what is said of a member (paper, 4.2): only the member itself raises its own.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec

from abi.errors import ProtocolError

NOBODY = 0
"""No member has this number."""

RUMOURS_ACCEPTED_MAX = 256
"""In one message. What is sent by itself is far less (``timings.Settings.rumours_max``); a state that was asked for
fills it: 256 rumours are under 5 KB."""

INCARNATION_MAX = (1 << 62) - 1
"""What is said of anybody. There is room above it in 64 bits for who must outbid it."""

Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
Incarnation: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INCARNATION_MAX)]


class State(enum.IntEnum):
    """In the order in which one outranks another of the same incarnation."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3
    """It said that it goes."""


class Rumour(msgspec.Struct, frozen=True, array_like=True):
    member: Number
    incarnation: Incarnation
    state: State
    accuser: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = NOBODY
    """Who suspects it at first hand; different accusers confirm each other (Lifeguard, IV-B)."""

    def differs_from(self, other: Rumour) -> bool:
        """In more than its accuser. Both are of one member."""
        return (self.incarnation, self.state) != (other.incarnation, other.state)


Rumours: TypeAlias = Annotated[tuple[Rumour, ...], msgspec.Meta(max_length=RUMOURS_ACCEPTED_MAX)]


class Probe(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Are you there?"""

    incarnation: Incarnation
    rumours: Rumours = ()
    asks_all: bool = False
    """The sender may have missed much: tell it of everybody who is not alive."""


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The answer to a probe."""

    incarnation: Incarnation
    rumours: Rumours = ()


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Is ``target`` there? I cannot reach it: probe it for me (the paper's ping-req)."""

    incarnation: Incarnation
    target: Number
    rumours: Rumours = ()


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """To an ask. That it was not reached is said as well: so the asker knows that it can hear (Lifeguard, IV-A)."""

    incarnation: Incarnation
    target: Number
    reached: bool
    rumours: Rumours = ()


Message: TypeAlias = Probe | Ack | Ask | Answer

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> Message:
    """Raises ProtocolError for anything that is not one whole message within its bounds."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(
            f"a message about members cannot be read: {error}",
            hint="the member that sent it is broken, or of a version that does not fit ours; see `abi network status`",
        ) from None
