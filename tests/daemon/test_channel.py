"""Frames and descriptors over a real socket pair, on a real loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator

import pytest
import uvloop

from abi.errors import ProtocolError
from abi.transport import recv_with_fds, send_with_fds
from abi.wire.frames import HEADER, Frame, pack
from abid.channel import Channel


class End:
    """A channel on one side of a socket pair, the bare socket on the other."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.loop = uvloop.new_event_loop()
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(10)
        self.frames: list[tuple[int, bytes, list[int]]] = []
        self.closed: list[str] = []
        self.channel = Channel(self.loop, ours, self.on_frame, self.on_closed, limit=limit)

    def on_frame(self, frame: object, fds: list[int]) -> None:
        kind, _codec, payload, _count = frame  # type: ignore[misc]
        self.frames.append((kind, bytes(payload), list(fds)))
        fds.clear()  # taken: ours to close

    def on_closed(self, why: str) -> None:
        self.closed.append(why)

    def turn(self, count: int = 3) -> None:
        """Let the loop look at its sockets ``count`` times."""
        for _ in range(count):
            self.loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def end() -> Iterator[End]:
    made = End()
    yield made
    made.channel.close("")
    made.peer.close()
    made.loop.close()


def test_frames_arrive_whole_however_they_are_cut(end: End) -> None:
    data = pack(18, b"one") + pack(19, b"") + pack(20, b"three")
    for index in range(len(data)):
        end.peer.send(data[index : index + 1])
        end.turn()
    assert [(kind, payload) for kind, payload, _ in end.frames] == [(18, b"one"), (19, b""), (20, b"three")]


def test_descriptors_come_with_their_frame(end: End) -> None:
    read_fd, write_fd = os.pipe()
    send_with_fds(end.peer, pack(18, b"x", descriptors=1), [write_fd])
    end.turn()
    (_, _, (received,)) = end.frames[0]
    os.write(received, b"through")
    assert os.read(read_fd, 10) == b"through"
    for fd in (read_fd, write_fd, received):
        os.close(fd)


def test_descriptors_that_nobody_takes_are_closed(end: End) -> None:
    def refuse(frame: object, fds: list[int]) -> None:
        received.extend(fds)
        raise ProtocolError("not this")

    received: list[int] = []
    end.channel.on_frame = lambda frame, fds: received.extend(fds)
    read_fd, write_fd = os.pipe()
    send_with_fds(end.peer, pack(18, b"x", descriptors=2), [write_fd, write_fd])
    end.turn()
    end.channel.on_frame = refuse
    send_with_fds(end.peer, pack(18, b"x", descriptors=1), [write_fd])
    end.turn()
    os.close(write_fd)
    assert len(received) == 3
    assert os.read(read_fd, 1) == b""  # no write end is left anywhere
    os.close(read_fd)


def test_a_pause_keeps_what_has_come(end: End) -> None:
    """The owner says stop in the middle of a read: not a frame more, and all of them later."""
    seen: list[bytes] = []

    def one_at_a_time(frame: Frame, fds: list[int]) -> None:
        seen.append(bytes(frame.payload))
        end.channel.pause_reading()

    end.channel.on_frame = one_at_a_time
    end.peer.send(b"".join(pack(18, bytes([number])) for number in range(5)))
    for count in range(1, 6):
        end.turn()
        assert seen == [bytes([number]) for number in range(count)]
        end.channel.resume_reading()
    end.turn()
    assert len(seen) == 5


def test_a_frame_that_names_descriptors_which_did_not_come(end: End) -> None:
    end.peer.send(pack(18, b"x", descriptors=2))
    end.turn()
    assert "names 2 descriptors; 0 came" in end.closed[0]


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, HEADER.pack(1 << 30, 18, 1, 0)])
def test_what_is_no_protocol_closes_the_connection(end: End, junk: bytes) -> None:
    end.peer.send(junk)
    end.turn()
    assert "not a frame of this protocol" in end.closed[0]
    assert end.peer.recv(10) == b""


def test_a_slow_reader_gets_everything_in_the_end(end: End) -> None:
    payload = os.urandom(100_000)
    for _ in range(50):
        end.channel.send(18, payload)
    assert end.channel.queued > 0
    drained = []
    end.channel.on_drained = lambda: drained.append(True)
    received = 0
    while received < 50 * (len(payload) + HEADER.size):
        received += len(end.peer.recv(1 << 20))
        end.turn(1)
    end.turn()
    assert end.channel.queued == 0
    assert drained


def test_queued_descriptors_survive_their_owner(end: End) -> None:
    fd = os.memfd_create("test")
    os.write(fd, b"content")
    for _ in range(20):
        end.channel.send(18, b"x" * 100_000)
    assert end.channel.queued > 0
    end.channel.send(19, b"last", [fd])
    os.close(fd)
    fds: list[int] = []
    expected = 20 * (100_000 + HEADER.size) + 4 + HEADER.size
    while expected:
        expected -= len(recv_with_fds(end.peer, bytearray(1 << 20), fds))
        end.turn(1)
    assert os.pread(fds[0], 10, 0) == b"content"
    os.close(fds[0])


def test_the_last_words_are_said_before_it_closes(end: End) -> None:
    for _ in range(20):
        end.channel.send(18, b"x" * 100_000)
    end.channel.close_when_sent()
    assert end.closed == []
    received = 0
    while data := end.peer.recv(1 << 20):
        received += len(data)
        end.turn(1)
    assert received == 20 * (100_000 + HEADER.size)
    assert end.closed == [""]


def test_a_frame_whose_descriptors_cannot_be_kept_ends_the_connection(
    end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it only lost, somebody would wait for ever for what was in it; were more sent, it would be taken for
    whole."""
    for _ in range(20):
        end.channel.send(18, b"x" * 100_000)
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    monkeypatch.setattr(os, "dup", lambda fd: (_ for _ in ()).throw(full))
    end.channel.send(19, b"lost", [0])
    end.channel.send(20, b"behind it")
    end.turn()
    assert end.closed == ["no descriptor is left to send with: Too many open files"]
    received = b""
    while data := end.peer.recv(1 << 20):
        received += data
    assert b"behind it" not in received
