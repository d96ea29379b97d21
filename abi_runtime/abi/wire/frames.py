"""The envelope of every message: length, kind, codec, number of descriptors; little endian, eight bytes.

Descriptors of large payloads travel beside the bytes (SCM_RIGHTS). The kernel hands them over with the bytes they were
sent with or before, never after, so one queue per connection suffices: a frame that says ``descriptors = n`` owns the
next n of the queue.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Final, NamedTuple

from abi.errors import ProtocolError

HEADER: Final = struct.Struct("<IBBH")
MSGPACK: Final = 1
JSON: Final = 2

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""A batch ends near 1 MiB (BATCH_BYTES); one item may bring a function's environment, never more than this."""
GREETING_BYTES_MAX: Final = 1024 * 1024
"""Before a connection has said who it is: enough for a large environment, little enough for a thousand strangers."""
BATCH_BYTES: Final = 1024 * 1024
"""Writers begin a new frame when the payloads in one exceed this."""
DESCRIPTORS_MAX: Final = 253
"""What the kernel passes with one send (SCM_MAX_FD)."""


class FrameTooLong(ProtocolError):
    """A frame says that it is longer than it may be here."""


class Frame(NamedTuple):
    kind: int
    codec: int
    payload: memoryview
    descriptors: int


def pack(kind: int, payload: bytes, *, codec: int = MSGPACK, descriptors: int = 0) -> bytes:
    """One frame. Raises ProtocolError if it exceeds a limit, before anything is sent."""
    if len(payload) > FRAME_BYTES_MAX:
        raise ProtocolError(f"a frame of {len(payload)} bytes exceeds the {FRAME_BYTES_MAX} that a frame may have")
    if descriptors > DESCRIPTORS_MAX:
        raise ProtocolError(f"{descriptors} descriptors do not fit beside one frame; {DESCRIPTORS_MAX} do")
    return HEADER.pack(len(payload), kind, codec, descriptors) + payload


class FrameReader:
    """Cuts a stream of bytes into frames. A partial frame waits for its rest; the buffer is bounded by one frame.

    What comes is added to it in place and looked at only when the frame is whole: a peer that sends 16 MiB byte by byte
    costs us those bytes and not their square.
    """

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self.limit = limit
        self._rest = bytearray()
        self._needed = 0
        """Bytes that the rest must have before it is worth a look."""

    def feed(self, data: bytes) -> Generator[Frame]:
        """The frames that are complete now. Raises ProtocolError on a length or codec that cannot be."""
        if self._rest:
            if len(self._rest) + len(data) < self._needed:
                self._rest += data
                return
            data = b"".join((self._rest, data))
            self._rest = bytearray()
        at, end = 0, len(data)
        view = memoryview(data)
        self._needed = 8
        try:
            while end - at >= 8:
                length, kind, codec, descriptors = HEADER.unpack_from(data, at)
                if length > self.limit or codec not in (MSGPACK, JSON) or descriptors > DESCRIPTORS_MAX:
                    known = codec in (MSGPACK, JSON) and descriptors <= DESCRIPTORS_MAX
                    raise (FrameTooLong if known else ProtocolError)(
                        f"not a frame of this protocol (length {length}, kind {kind}, codec {codec}, "
                        f"{descriptors} descriptors)"
                    )
                if end - at - 8 < length:
                    self._needed = 8 + length
                    break
                frame = Frame(kind, codec, view[at + 8 : at + 8 + length], descriptors)
                at += 8 + length
                yield frame
        finally:
            if at < end:
                self._rest = bytearray(view[at:])

    @property
    def pending(self) -> int:
        """Bytes of a frame that has begun and not ended."""
        return len(self._rest)
