"""Whoever submits — a program, or a worker on behalf of its program — says the same things in the same frames.

A ``Submitter`` turns those frames into events for the core and the core's deliveries into frames. What is to be sent is
kept as a queue of items and made into frames only when the connection has room, so a million unread results cost their
reader's place in a queue and nothing more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from abi.errors import ProtocolError
from abi.objects.blob import Blob
from abi.wire.codec import decode_items, decoders, encode_items, encode_split
from abi.wire.frames import BATCH_BYTES, DESCRIPTORS_MAX, MSGPACK, Frame
from abi.wire.schema import End, Item, Kind, Output, Starting
from abid import held
from abid.core.session import Session
from abid.core.task import Record

if TYPE_CHECKING:
    from abid.channel import Channel
    from abid.node import Node

KINDS = (
    Kind.FUNCTION,
    Kind.OPTIONS,
    Kind.SUBMIT,
    Kind.PUT,
    Kind.WANT,
    Kind.BORROW,
    Kind.RELEASE,
    Kind.CANCEL,
)
size_of = attrgetter("size")
QUEUED_BYTES_MAX = 1024 * 1024
"""Bytes handed to the kernel's queue before we wait for it to drain: enough to keep any reader busy."""
ITEMS_PER_FRAME_MAX = 4096
LOOK_AGAIN_S = 0.005
"""After a reader was found behind: the kernel does not tell when it has read. 64 MiB each time is more than any can
use."""
ENDS_PER_FRAME_MAX = 1024
"""Ends that are encoded before their size is known: a hundred megabytes at the very worst."""
OUTGOING_SPARE_MAX = 65_536
"""A program that reads has fewer answers under way than tasks; one with so many more is not read from until it does."""


class Submitter:
    """One end of a connection that submits. ``channel`` is set by the owner, and None while it is away."""

    def __init__(self, node: Node, session: Session, number: int) -> None:
        self.node = node
        self.session = session
        self.number = number
        self.channel: Channel | None = None
        self._paused = False
        self.unread_bytes = 0
        """Results and output that wait for their reader, when it does not keep up."""
        self.outgoing: deque[tuple[int, Item, list[Blob] | None]] = deque()
        self._beside = 0
        """Bytes of results in shared memory that were sent since the reader was last seen to have read all."""
        self._look_again: asyncio.TimerHandle | None = None
        self._handlers: dict[int, Callable[[list[Any], list[int]], None]] = {
            Kind.FUNCTION: self._on_function,
            Kind.OPTIONS: self._on_options,
            Kind.SUBMIT: self._on_submit,
            Kind.PUT: self._on_put,
            Kind.WANT: self._on_want,
            Kind.BORROW: self._on_borrow,
            Kind.RELEASE: self._on_release,
            Kind.CANCEL: self._on_cancel,
        }
        self._decoders = decoders(KINDS, {Kind.SUBMIT: Record})

    def on_frame(self, frame: Frame, fds: list[int]) -> None:
        """Raises ProtocolError for what is no message of a submitter."""
        if frame.codec != MSGPACK:
            raise ProtocolError("a session speaks msgpack after its greeting")
        items = decode_items(self._decoders, frame.kind, frame.payload)
        self._handlers[frame.kind](items, fds)
        self.node.touch()

    # What submitters say.

    def _on_function(self, items: list[Any], fds: list[int]) -> None:
        blobs = Blobs(fds)
        for function in items:
            blob = blobs.take(function.size) if function.pickled is None else None
            self.node.core.on_function(self.session, self.number, function, [blob] if blob else None)

    def _on_options(self, items: list[Any], fds: list[int]) -> None:
        for options in items:
            self.node.core.on_options(self.session, self.number, options)

    def _on_submit(self, items: list[Any], fds: list[int]) -> None:
        too_many = ""
        if fds or any(map(size_of, items)):
            blobs = Blobs(fds)
            for record in items:
                if record.size:
                    record.blobs = [blobs.take(record.size)]
            too_many = held.too_many()
        self.node.core.on_submit(self.session, self.number, items, self.node.now(), too_many)

    def _on_put(self, items: list[Any], fds: list[int]) -> None:
        blobs = Blobs(fds)
        taken: dict[int, list[Any]] = {}
        for index, put in enumerate(items):
            sizes = [part.size for part in (put, *(put.parts or ())) if part.size]
            if sizes:
                taken[index] = [blobs.take(size) for size in sizes]
        self.node.core.on_put(self.session, self.number, items, taken, held.too_many() if taken else "")

    def _on_want(self, items: list[Any], fds: list[int]) -> None:
        # Each once: a frame of a million times the same would be a million copies of what it asks for.
        self.node.core.on_want(self.session, self.number, list(dict.fromkeys(item.seq for item in items)))

    def _on_borrow(self, items: list[Any], fds: list[int]) -> None:
        self.node.core.on_borrow(self.session, self.number, [item.seq for item in items])

    def _on_release(self, items: list[Any], fds: list[int]) -> None:
        self.node.core.on_release(self.session, self.number, items)

    def _on_cancel(self, items: list[Any], fds: list[int]) -> None:
        for item in items:
            self.node.core.on_cancel(self.session, [item.seq], item.force, item.recursive, self.node.now())

    # What they are told.

    def deliver(self, records: list[Record]) -> None:
        """Send or queue the ends of these tasks."""
        outgoing = self.outgoing
        channel = self.channel
        if not outgoing and channel is not None and channel.queued < QUEUED_BYTES_MAX:
            # The way of almost all: nobody waits before them, and nothing lies in descriptors.
            for record in records:
                if record.blobs is not None:
                    break
            else:
                for start in range(0, len(records), ENDS_PER_FRAME_MAX):
                    if channel.queued > QUEUED_BYTES_MAX:
                        records = records[start:]
                        break
                    for payload in encode_split([r.end for r in records[start : start + ENDS_PER_FRAME_MAX]]):
                        channel.send(Kind.END, payload)
                else:
                    return
        for record in records:
            end = record.end
            assert end is not None
            outgoing.append((Kind.END, end, record.blobs))
        self.pump()
        if outgoing:
            # It does not keep up. Counted only then, and too high rather than too low, since the count is for a limit.
            self.count_unread(sum(len(record.end.payload) + record.end.size for record in records if record.end))
            if channel is not None and len(outgoing) > len(self.session.tasks) + OUTGOING_SPARE_MAX:
                channel.pause_reading()  # it asks again and again for what it does not read
                self._paused = True

    def count_unread(self, size: int) -> None:
        """Bytes more that its reader does not fetch: with too many of them, none of its tasks starts."""
        self.unread_bytes += size
        self.session.stalled = self.unread_bytes > self.node.core.board.limits.unread_results_bytes_max

    def say(self, kind: Kind, item: Output | Starting) -> None:
        self.outgoing.append((kind, item, None))

    def pump(self) -> None:
        """Send as much of the queue as the connection has room for."""
        channel = self.channel
        if channel is None:
            return
        while (
            self.outgoing and channel.queued < QUEUED_BYTES_MAX and not channel.closed and not self._is_behind(channel)
        ):
            kind, items, fds = self._next_frame()
            if fds:
                self._beside += sum(map(_shared_bytes, items))
            channel.send(kind, encode_items(items), fds)
        if not self.outgoing and self.unread_bytes:
            self.unread_bytes = 0
            self.session.stalled = False
            self.node.touch()

        if self._paused and not self.outgoing:
            self._paused = False
            channel.resume_reading()

    def _is_behind(self, channel: Channel) -> bool:
        """Whether its reader has left alone as much in shared memory as it may leave unread. The few bytes that
        announce it fit the kernel's buffer by the thousand, so a full buffer would say so too late."""
        if self._beside <= self.node.core.board.limits.unread_results_bytes_max:
            return False
        if not channel.unread_bytes():
            self._beside = 0
            return False
        if self._look_again is None:
            self._look_again = self.node.loop.call_later(LOOK_AGAIN_S, self._pump_again)
        return True

    def _pump_again(self) -> None:
        self._look_again = None
        if self.channel is not None and self.channel.on_drained is not None:
            self.channel.on_drained()

    def _next_frame(self) -> tuple[int, list[Item], list[int]]:
        """A run of items of one kind from the front of the queue, within the limits of a frame."""
        outgoing = self.outgoing
        kind = outgoing[0][0]
        items: list[Item] = []
        fds: list[int] = []
        size = 0
        while outgoing and outgoing[0][0] == kind and size < BATCH_BYTES and len(items) < ITEMS_PER_FRAME_MAX:
            _, item, blobs = outgoing[0]
            if blobs:
                if len(fds) + len(blobs) > DESCRIPTORS_MAX and items:
                    break
                fds.extend(blob.fd for blob in blobs)
            outgoing.popleft()
            items.append(item)
            size += 32 + (_inline_bytes(item) if type(item) is End else 256)
        return kind, items, fds


def _shared_bytes(item: Any) -> int:
    return sum(part.size for part in (item, *(item.parts or ()))) if type(item) is End else 0


def _inline_bytes(end: End) -> int:
    return len(end.payload) + sum(len(part.payload) for part in end.parts or ())


class Blobs:
    """The descriptors of one frame, taken in the order of its items; what nobody takes its channel closes."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds
        self._fds.reverse()

    def take(self, size: int) -> Blob:
        """Raises ProtocolError when the frame brought fewer descriptors than its items name."""
        if size < 0:
            raise ProtocolError(f"a payload of {size} bytes was announced")
        if not self._fds:
            raise ProtocolError("a frame brought fewer descriptors than its items name")
        return held.Held(self._fds.pop(), size)
