"""What waits to be sent: descriptors are made late and closed early, and a batch is taken whole or not at all."""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from abi.link import Link
from abi.objects import memfd
from abi.objects.memfd import create, open_view
from abi.outgoing import MADE_MAX, Outgoing
from abi.wire.codec import decode_items, decoders
from abi.wire.frames import FrameReader
from abi.wire.schema import Kind, Put, Reference


class Sender:
    """A socket that notes how many descriptors go at once, and may be told to fail first."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.counts: list[int] = []
        self.failures: list[OSError] = []

    def send(self, data: memoryview, flags: int) -> int:
        return self.sock.send(data, flags)

    def sendmsg(self, parts: list[memoryview], beside: list[Any], flags: int) -> int:
        self.counts.append(len(beside[0][2]))
        if self.failures:
            raise self.failures.pop()
        return self.sock.sendmsg(parts, beside, flags)


@pytest.fixture
def pair() -> Iterator[tuple[Sender, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Sender(ours), theirs


def push(outgoing: Outgoing, sender: Sender) -> bool:
    return outgoing.push(cast("socket.socket", sender))


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def large(seq: int) -> bytes:
    return bytes([seq]) * 5000


def received(sock: socket.socket) -> list[tuple[int, bytes]]:
    """Numbers and bytes of the objects that came."""
    data, fds, _flags, _address = socket.recv_fds(sock, 1 << 20, 253)
    table, found = decoders((Kind.PUT,)), []
    for frame in FrameReader().feed(data):
        for item in decode_items(table, frame.kind, frame.payload):
            fd = fds.pop(0)
            found.append((item.seq, bytes(open_view(fd, item.size))))
            os.close(fd)
    assert not fds
    return found


def test_memfds_are_made_just_before_they_go(pair: tuple[Sender, socket.socket]) -> None:
    sender, theirs = pair
    outgoing, before = Outgoing(), descriptors()
    outgoing.add([(Kind.PUT, Put(seq, b"", 5000), memoryview(large(seq))) for seq in range(3 * MADE_MAX + 1)])
    assert descriptors() == before
    found: list[tuple[int, bytes]] = []
    assert push(outgoing, sender)
    assert descriptors() == before
    while len(found) < 3 * MADE_MAX + 1:
        found += received(theirs)
    assert found == [(seq, large(seq)) for seq in range(3 * MADE_MAX + 1)]
    assert sender.counts == [MADE_MAX, MADE_MAX, MADE_MAX, 1]


def test_one_item_may_need_more(pair: tuple[Sender, socket.socket]) -> None:
    sender, theirs = pair
    outgoing = Outgoing()
    views = [memoryview(large(number)) for number in range(2 * MADE_MAX)]
    first, last = create([large(1)]), create([large(2)])
    outgoing.add([(Kind.PUT, Put(1, b""), first), (Kind.PUT, Put(2, b""), views), (Kind.PUT, Put(3, b""), last)])
    assert push(outgoing, sender)
    assert sender.counts == [1, 2 * MADE_MAX, 1]
    assert first.fd == last.fd == -1
    fds = socket.recv_fds(theirs, 1 << 20, 253)[1]
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(("number", "crowded"), [(errno.EAGAIN, False), (errno.ETOOMANYREFS, True)])
def test_what_the_kernel_does_not_take_yet_is_made_once(
    pair: tuple[Sender, socket.socket], monkeypatch: pytest.MonkeyPatch, number: int, crowded: bool
) -> None:
    sender, theirs = pair
    outgoing, made = Outgoing(), []

    def count(parts: Any) -> Any:
        made.append(1)
        return create(parts)

    monkeypatch.setattr(memfd, "create", count)
    before = descriptors()
    outgoing.add([(Kind.PUT, Put(1, b"", 5000), memoryview(large(1)))])
    sender.failures = [OSError(number, os.strerror(number)), OSError(number, os.strerror(number))]
    assert (push(outgoing, sender), outgoing.is_crowded) == (False, crowded)
    assert (push(outgoing, sender), outgoing.is_crowded) == (False, crowded)
    assert (push(outgoing, sender), outgoing.is_crowded) == (True, False)
    assert received(theirs) == [(1, large(1))]
    assert (len(made), descriptors()) == (1, before)


def test_what_never_goes_is_closed(pair: tuple[Sender, socket.socket]) -> None:
    sender, _theirs = pair
    outgoing, before = Outgoing(), descriptors()
    outgoing.add([(Kind.PUT, Put(1, b"", 5000), create([large(1)])), (Kind.PUT, Put(2, b"", 5000), memoryview(b"x"))])
    sender.failures = [OSError(errno.EMFILE, "Too many open files")]
    with pytest.raises(OSError, match="Too many"):
        push(outgoing, sender)
    outgoing.clear()
    assert not outgoing
    assert descriptors() == before


def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        link = Link(ours, {}, {})
        good, bad = (Kind.WANT, Reference(1)), (Kind.PUT, Put(2, cast("bytes", object())))
        link.outbox += [good, bad]
        link.releases.append(3)
        with pytest.raises(TypeError):
            link.flush()
        assert (link.outbox, link.releases) == ([good, bad], [3])
        link.outbox.remove(bad)
        link.flush()
        frames = [(frame.kind, bytes(frame.payload)) for frame in FrameReader().feed(theirs.recv(1000))]
        assert [kind for kind, _payload in frames] == [Kind.WANT, Kind.RELEASE]
        link.close()
