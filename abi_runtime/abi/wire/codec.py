"""Bytes of messages. Encoders and decoders are made once: building one costs more than a thousand uses.

An exception in the middle of that, or of making a Struct, is lost in msgspec 0.22 or crashes it later: a Ctrl-C in a
program's first call did. So this module and the schema are loaded, and decoders are made, without interruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from abi.errors import ProtocolError, SerializationError
from abi.guard import uninterrupted
from abi.wire.frames import BATCH_BYTES, FRAME_BYTES_MAX
from abi.wire.schema import ITEMS, Failure, Item, Kind, Refused

T = TypeVar("T")

_encoder: Final = msgspec.msgpack.Encoder()
with uninterrupted():
    _failure_decoder: Final = msgspec.msgpack.Decoder(Failure)
    _refused_decoder: Final = msgspec.json.Decoder(Refused)

encode_items = _encoder.encode
"""The payload of a frame: ``encode_items([item, …])``."""


def encode_split(items: list[Any]) -> list[bytes]:
    """The payload of one frame, or of as many as it takes to stay near BATCH_BYTES: halving spares counting bytes item
    by item."""
    payload = encode_items(items)
    if len(payload) <= BATCH_BYTES or len(items) < 2:
        return [payload]
    middle = len(items) // 2
    return encode_split(items[:middle]) + encode_split(items[middle:])


def encode_definition(item: Item, what: str) -> bytes:
    """The payload of a frame for ``item`` alone. Raises SerializationError, which calls it ``what``, if no frame can
    hold it: before it is noted anywhere, since all that is sent with it could not be sent either."""
    try:
        payload = encode_items([item])
    except UnicodeEncodeError as error:
        raise SerializationError(f"{what}: a text in it is no Unicode ({error.reason})") from None
    if len(payload) > FRAME_BYTES_MAX:
        raise SerializationError(f"{what} takes {len(payload)} bytes, and a message may have {FRAME_BYTES_MAX}")
    return payload


def encode_greeting(item: Any) -> bytes:
    """JSON; a name that is no Unicode (see ``abi.wire.names``) is escaped in it, which our encoder refuses to do."""
    try:
        return msgspec.json.encode(item)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(item)).encode("ascii")


def decode_greeting(payload: bytes | memoryview, kind: type[T]) -> T:
    """What ``encode_greeting`` wrote. Raises msgspec.DecodeError."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        import json

        try:
            words = json.loads(bytes(payload))
        except (ValueError, RecursionError):
            raise error from None
        return msgspec.convert(words, kind)


def decoders(kinds: Sequence[Kind], replace: dict[Kind, type[Item]] | None = None) -> dict[int, Any]:
    """Decode functions by kind, for one side of one sort of connection; what is not named is refused there.

    ``replace`` decodes a kind into a subclass of its item type (the daemon's own record of a task).
    """
    types: dict[Kind, Any] = {**ITEMS, **(replace or {})}
    return {int(kind): _decode_refused if kind == Kind.REFUSED else _list_decoder(types[kind]) for kind in kinds}


def _decode_refused(payload: bytes | memoryview) -> list[Refused]:
    """REFUSED is JSON and no list at any time, so that whoever is refused can read why, whatever it speaks."""
    return [_refused_decoder.decode(payload)]


@cache
def _list_decoder(item: Any) -> Any:
    with uninterrupted():
        return msgspec.msgpack.Decoder(list[item]).decode


def decode_items(table: dict[int, Any], kind: int, payload: bytes | memoryview) -> list[Any]:
    """The items of a frame. Raises ProtocolError for a kind that has no place here and for bytes that are not its
    items."""
    decode = table.get(kind)
    if decode is None:
        raise ProtocolError(f"a frame of kind {kind} has no place on this connection")
    try:
        return decode(payload)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise ProtocolError(f"a frame of kind {Kind(kind).name} does not decode: {error}") from None


def encode_failure(failure: Failure) -> bytes:
    return _encoder.encode(failure)


def decode_failure(payload: bytes) -> Failure:
    """Raises ProtocolError when ``payload`` is not a failure."""
    try:
        return _failure_decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"an error's description does not decode: {error}") from None
