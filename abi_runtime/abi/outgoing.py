"""What waits to be sent on one connection: items become frames, frames wait until the kernel takes them.

Runs of one kind share a frame, since a frame of hundreds of items costs little more than a frame of one. Not
thread-safe: ``Link`` calls it under its sending lock.
"""

from __future__ import annotations

import array
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Protocol

from abi.wire.codec import encode_items, encode_split
from abi.wire.frames import BATCH_BYTES, DESCRIPTORS_MAX, pack

SEND_FLAGS: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
"""Never blocking, and no SIGPIPE even in programs that gave that signal its default back."""
RUN_ITEMS_MAX: Final = 4096
"""Encoded at once: bounds the copy that is thrown away when a run turns out larger than BATCH_BYTES."""
GATHER_BYTES_MAX: Final = 4 * BATCH_BYTES
"""Frames without descriptors are joined up to here into one send."""
BESIDE_ITEMS_MAX: Final = 64
"""Items in a frame with descriptors: at 100 KiB inline each, that stays below the limit of a frame."""

_kind_of = itemgetter(0)


class Closable(Protocol):
    """What carries one descriptor and is closed once that is sent (``abi.objects.blob.Blob``)."""

    fd: int

    def close(self) -> None: ...


class Outgoing:
    """Encoded bytes in order, with the descriptors that go beside them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[memoryview, list[int], list[Closable]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, batch: Sequence[tuple[Any, ...]]) -> None:
        """Encode ``(kind, item)`` and ``(kind, item, descriptors or Blob)`` in their order."""
        joined: list[bytes] = []
        length = 0
        for frame, fds, blobs in _frames_of(batch):
            if fds:
                self._join(joined)
                joined, length = [], 0
                self._waiting.append((memoryview(frame), fds, blobs))
                continue
            joined.append(frame)
            length += len(frame)
            if length > GATHER_BYTES_MAX:
                self._join(joined)
                joined, length = [], 0
        self._join(joined)

    def push(self, sock: socket.socket) -> bool:
        """Send until all is gone (True) or the kernel's buffer is full (False). Raises OSError when the other side
        left."""
        while self._waiting:
            view, fds, blobs = self._waiting[0]
            try:
                if fds:
                    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                    sent = sock.sendmsg([view], beside, SEND_FLAGS)
                else:
                    sent = sock.send(view, SEND_FLAGS)
            except BlockingIOError:
                return False
            # With the first byte all descriptors went, so the rest travels without them.
            for blob in blobs:
                blob.close()
            if sent == len(view):
                self._waiting.popleft()
            else:
                self._waiting[0] = (view[sent:], [], [])
        return True

    def clear(self) -> None:
        """Forget everything: the connection it was meant for is gone."""
        for _view, _fds, blobs in self._waiting:
            for blob in blobs:
                blob.close()
        self._waiting.clear()

    def _join(self, frames: list[bytes]) -> None:
        if frames:
            self._waiting.append((memoryview(frames[0] if len(frames) == 1 else b"".join(frames)), [], []))


def _frames_of(batch: Sequence[tuple[Any, ...]]) -> Iterator[tuple[bytes, list[int], list[Closable]]]:
    for kind, entries in groupby(batch, _kind_of):
        run = list(entries)
        if 3 in map(len, run):
            yield from _frames_with_descriptors(kind, run)
        else:
            items = [entry[1] for entry in run]
            for start in range(0, len(items), RUN_ITEMS_MAX):
                for payload in encode_split(items[start : start + RUN_ITEMS_MAX]):
                    yield pack(kind, payload), [], []


def _frames_with_descriptors(
    kind: int, run: list[tuple[Any, ...]]
) -> Iterator[tuple[bytes, list[int], list[Closable]]]:
    items: list[Any] = []
    fds: list[int] = []
    blobs: list[Closable] = []
    room = BATCH_BYTES
    for entry in run:
        own, blob = _descriptors_of(entry)
        room -= _inline_bytes(entry[1])
        if items and (len(fds) + len(own) > DESCRIPTORS_MAX or len(items) >= BESIDE_ITEMS_MAX or room < 0):
            yield pack(kind, encode_items(items), descriptors=len(fds)), fds, blobs
            items, fds, blobs = [], [], []
            room = BATCH_BYTES - _inline_bytes(entry[1])
        items.append(entry[1])
        fds += own
        if blob is not None:
            blobs.append(blob)
    yield pack(kind, encode_items(items), descriptors=len(fds)), fds, blobs


def _inline_bytes(item: Any) -> int:
    """Of several results beside each other, which may be far more than one."""
    parts = getattr(item, "parts", None)
    return sum(len(part.payload) for part in parts) if parts else 0


def _descriptors_of(entry: tuple[Any, ...]) -> tuple[list[int], Closable | None]:
    if len(entry) == 2:
        return [], None
    beside = entry[2]
    if isinstance(beside, (tuple, list)):
        return list(beside), None
    several: list[int] | None = getattr(beside, "fds", None)
    return [beside.fd] if several is None else several, beside
