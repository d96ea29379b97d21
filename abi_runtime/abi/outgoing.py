"""What waits to be sent on one connection: items become frames, frames wait until the kernel takes them.

Runs of one kind share a frame, since a frame of hundreds of items costs little more than a frame of one. Not
thread-safe: ``Link`` calls it under its sending lock.
"""

from __future__ import annotations

import array
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from errno import ETOOMANYREFS
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
MADE_MAX: Final = 8
"""Memfds that are made for one frame, unless one item needs more: few, as the program may have few descriptors left,
and enough for a frame to cost nothing beside them."""

_kind_of = itemgetter(0)


class Closable(Protocol):
    """What carries one descriptor and is closed once that is sent (``abi.objects.blob.Blob``)."""

    fd: int

    def close(self) -> None: ...


Beside = int | Closable | memoryview
"""What goes beside a frame as one descriptor: one that its owner closes, one that is closed when it was sent, or bytes
for which a memfd is made just before. A program may keep as many of these as it has memory for."""


class Outgoing:
    """Encoded bytes in order, with the descriptors that go beside them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[memoryview, list[Beside]]] = deque()
        self.is_crowded = False
        """Whether it is not the socket's buffer that is full: this user has more descriptors in flight than the kernel
        allows (as many as a process may open), so that a socket which can be written says nothing."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, batch: Sequence[tuple[Any, ...]]) -> None:
        """Encode ``(kind, item)`` and ``(kind, item, what goes beside it)`` in their order: all, or none where that
        raises."""
        encoded: list[tuple[memoryview, list[Beside]]] = []
        joined: list[bytes] = []
        length = 0
        for frame, beside in _frames_of(batch):
            if beside:
                _join(joined, encoded)
                joined, length = [], 0
                encoded.append((memoryview(frame), beside))
                continue
            joined.append(frame)
            length += len(frame)
            if length > GATHER_BYTES_MAX:
                _join(joined, encoded)
                joined, length = [], 0
        _join(joined, encoded)
        self._waiting += encoded

    def push(self, sock: socket.socket) -> bool:
        """Send until all is gone (True) or the kernel takes no more for now (False). Raises OSError when the other side
        left, and when there is no memory or descriptor for what is to go."""
        self.is_crowded = False
        while self._waiting:
            view, beside = self._waiting[0]
            try:
                sent = _send_beside(sock, view, beside) if beside else sock.send(view, SEND_FLAGS)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != ETOOMANYREFS:
                    raise
                self.is_crowded = True
                return False
            if sent == len(view):
                self._waiting.popleft()
            else:
                # With the first byte all descriptors went, so the rest travels without them.
                self._waiting[0] = (view[sent:], [])
        return True

    def clear(self) -> None:
        """Forget everything: the connection it was meant for is gone."""
        for _view, beside in self._waiting:
            _close(beside)
        self._waiting.clear()


def _send_beside(sock: socket.socket, view: memoryview, beside: list[Beside]) -> int:
    fds = array.array("i")
    for at, each in enumerate(beside):
        if isinstance(each, int):
            fds.append(each)
            continue
        if isinstance(each, memoryview):
            from abi.objects.memfd import create

            each = create([each])
            beside[at] = each  # kept, should the kernel not take it yet
        fds.append(each.fd)
    sent = sock.sendmsg([view], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], SEND_FLAGS)
    _close(beside)
    return sent


def _close(beside: list[Beside]) -> None:
    for each in beside:
        if not isinstance(each, int | memoryview):
            each.close()


def _join(frames: list[bytes], encoded: list[tuple[memoryview, list[Beside]]]) -> None:
    if frames:
        encoded.append((memoryview(frames[0] if len(frames) == 1 else b"".join(frames)), []))


def _frames_of(batch: Sequence[tuple[Any, ...]]) -> Iterator[tuple[bytes, list[Beside]]]:
    for kind, entries in groupby(batch, _kind_of):
        run = list(entries)
        if 3 in map(len, run):
            yield from _frames_with_descriptors(kind, run)
        else:
            items = [entry[1] for entry in run]
            for start in range(0, len(items), RUN_ITEMS_MAX):
                for payload in encode_split(items[start : start + RUN_ITEMS_MAX]):
                    yield pack(kind, payload), []


def _frames_with_descriptors(kind: int, run: list[tuple[Any, ...]]) -> Iterator[tuple[bytes, list[Beside]]]:
    items: list[Any] = []
    beside: list[Beside] = []
    room, makes = BATCH_BYTES, 0
    for entry in run:
        own = _beside(entry)
        own_makes = sum(type(each) is memoryview for each in own)
        room -= _inline_bytes(entry[1])
        makes += own_makes
        is_full = len(items) >= BESIDE_ITEMS_MAX or len(beside) + len(own) > DESCRIPTORS_MAX or makes > MADE_MAX
        if items and (is_full or room < 0):
            yield pack(kind, encode_items(items), descriptors=len(beside)), beside
            items, beside = [], []
            room, makes = BATCH_BYTES - _inline_bytes(entry[1]), own_makes
        items.append(entry[1])
        beside += own
    yield pack(kind, encode_items(items), descriptors=len(beside)), beside


def _inline_bytes(item: Any) -> int:
    """Of several results beside each other, which may be far more than one."""
    parts = getattr(item, "parts", None)
    return sum(len(part.payload) for part in parts) if parts else 0


def _beside(entry: tuple[Any, ...]) -> list[Beside]:
    if len(entry) == 2:
        return []
    beside = entry[2]
    return list(beside) if isinstance(beside, tuple | list) else [beside]
