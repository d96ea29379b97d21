"""A framed connection for one thread that also waits for other things: the zygote's and the supervisor's.

The socket stays blocking and every read says MSG_DONTWAIT, so sending is simple and receiving never waits.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from abi.errors import ProtocolError
from abi.wire.codec import decode_items, decoders, encode_items
from abi.wire.frames import DESCRIPTORS_MAX, FrameReader, pack
from abi.wire.schema import Item, Kind

READ_BYTES: Final = 64 * 1024
_ROOM: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)


class Message(NamedTuple):
    kind: int
    items: list[Any]
    descriptors: list[int]


class Channel:
    """Owns its socket. ``accepts`` are the kinds that may arrive."""

    def __init__(self, fd: int, accepts: Sequence[Kind]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._table = decoders(accepts)
        self._reader = FrameReader()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Iterator[Message]:
        """The messages that are complete now. Raises EOFError at the end, ProtocolError, OSError."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                READ_BYTES, _ROOM, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("descriptors were lost on the way: this process may open no more of them")
        for level, sort, content in ancillary:
            if (level, sort) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors += array.array("i", content)
        for frame in self._reader.feed(data):
            items = decode_items(self._table, frame.kind, frame.payload)
            count = frame.descriptors
            own, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            yield Message(frame.kind, items, own)

    def send(self, kind: Kind, item: Item, descriptors: Sequence[int] = ()) -> None:
        """Waits until the other side has taken it. Raises OSError when there is no other side."""
        data = pack(kind, encode_items([item]), descriptors=len(descriptors))
        if descriptors:
            data = data[socket.send_fds(self._socket, [data], descriptors) :]
        self._socket.sendall(data)

    def offer(self, kind: Kind, item: Item) -> bool:
        """Sends if it can without waiting: for what the next message makes obsolete. Whether it went out."""
        data = pack(kind, encode_items([item]))
        try:
            sent = self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        self._socket.sendall(data[sent:])  # a frame that has begun must end; stream sockets rarely split 30 bytes
        return True

    def detach(self) -> int:
        """Gives the descriptor up, for a forked child that must close it without this object's knowing."""
        return self._socket.detach()
