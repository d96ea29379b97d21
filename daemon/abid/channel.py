"""One framed, descriptor-passing connection on the daemon's loop: sessions, workers, zygotes and control alike.

Raw non-blocking sockets rather than asyncio's streams, since descriptors travel beside the bytes and since a reader
that is called with whole frames needs no task of its own. Reads are level-triggered, 256 KiB at a time, so that no
peer keeps the loop to itself; writes go out at once when the kernel takes them and otherwise wait in a queue whose
size the owner watches (``queued``), so that what is sent to a slow reader is made only when there is room
(``on_drained``).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import sys
import termios
from collections import deque
from collections.abc import Callable, Sequence

from abi.errors import ProtocolError
from abi.spin import Spin
from abi.transport import recv_with_fds, send_with_fds
from abi.wire.frames import DESCRIPTORS_MAX, FRAME_BYTES_MAX, HEADER, Frame, FrameReader

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
_buffer = bytearray(READ_BYTES)
"""One for all channels: there is one thread, and what is received is copied out at once."""
LINGER_S = 5.0
"""How long a peer that we are done with has to read our last words."""
DESCRIPTORS_WAITING_MAX = 4 * DESCRIPTORS_MAX
"""Descriptors that came ahead of their frames; more than this and the peer is not one of ours."""


class Channel:
    """Frames in, frames out. ``on_frame`` may raise ProtocolError: the owner's ``on_closed`` is then told why.

    It takes the descriptors that it wants out of its list. What is left there, whatever happened, is closed: a peer
    must not be able to fill our table with descriptors that no handler expects.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_frame: Callable[[Frame, list[int]], None],
        on_closed: Callable[[str], None],
        *,
        limit: int = FRAME_BYTES_MAX,
    ) -> None:
        sock.setblocking(False)
        self.queued = 0
        self.closed = False
        self.on_frame = on_frame
        self.on_drained: Callable[[], None] | None = None
        self.after_read: Callable[[], None] | None = None
        """Called when what was read has been handled: a task goes on at once, without another turn of the loop."""
        self.on_broken: Callable[[ProtocolError], None] | None = None
        """What to do about a peer that breaks the protocol, in place of closing at once: say so first."""
        self._on_closed = on_closed
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._reader = FrameReader(limit)
        self._fds: list[int] = []
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._reading = False
        self._closing = False
        self._why = ""
        self.resume_reading()

    def set_limit(self, limit: int) -> None:
        """The largest frame from now on: strangers may send less than those who have said who they are."""
        self._reader.limit = limit

    def spin(self, longest_ns: int) -> Spin:
        """Looks for what the peer says next; for as long as the channel is open."""
        return Spin(self._sock, longest_ns)

    def pause_reading(self) -> None:
        """Leave what comes in the kernel's buffer: the peer blocks when it is full."""
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def resume_reading(self) -> None:
        if not (self._reading or self.closed or self._closing):
            self._loop.add_reader(self._fd, self._on_readable)
            self._reading = True
            if self._reader.pending:
                self._loop.call_soon(self._read_pending)

    def _read_pending(self) -> None:
        """Frames that had come in whole when reading was paused."""
        if self._reading:
            self._handle(b"")

    def _on_readable(self) -> None:
        self.read_once()
        if self.after_read is not None:
            self.after_read()

    def read_once(self) -> bool:
        """Handle what is there now, one read's worth. False when there was nothing, or the connection ended."""
        try:
            data = recv_with_fds(self._sock, _buffer, self._fds)
        except BlockingIOError:
            return False
        except (ConnectionError, OSError) as error:
            self.close(f"connection lost: {error.strerror or error}")
            return False
        except ProtocolError as error:
            return self._break(error)
        if not data:
            self.close("")
            return False
        return self._handle(data)

    def read_rest(self) -> None:
        """Handle everything that the peer had sent before it went, also what a pause had left."""
        while not self.closed:
            self.resume_reading()
            if self._reader.pending and not self._handle(b""):
                return
            if not self.read_once():
                return

    def _handle(self, data: bytes) -> bool:
        frames = self._reader.feed(data)
        try:
            for frame in frames:
                if frame.descriptors:
                    self._handle_with_fds(frame)
                else:
                    self.on_frame(frame, [])
                if self.closed:
                    return False
                if not self._reading:
                    frames.close()  # paused: the rest keeps
                    return True
            if len(self._fds) > DESCRIPTORS_WAITING_MAX:
                raise ProtocolError("descriptors came that belong to no frame")
        except ProtocolError as error:
            return self._break(error)
        except Exception:
            # A fault of ours, met by one peer: it loses its connection, and nobody waits for what never comes.
            log.exception("a frame could not be handled")
            return self._break(ProtocolError("the daemon could not handle this; its log says why"))
        return True

    def _break(self, error: ProtocolError) -> bool:
        self.pause_reading()
        if self.on_broken is None:
            self.close(error.message)
        else:
            self.on_broken(error)
        return False

    def _handle_with_fds(self, frame: Frame) -> None:
        count = frame.descriptors
        if len(self._fds) < count:
            raise ProtocolError(f"a frame names {count} descriptors; {len(self._fds)} came")
        taken = self._fds[:count]
        del self._fds[:count]
        try:
            self.on_frame(frame, taken)
        finally:
            _close_all(taken)

    def send(self, kind: int, payload: bytes, fds: Sequence[int] = (), codec: int = 1) -> None:
        """Send one frame, or queue it. Descriptors must stay open until the frame has left (``queued`` is 0)."""
        if self.closed or self._closing:
            return
        data = memoryview(HEADER.pack(len(payload), kind, codec, len(fds)) + payload)
        is_first = not self._unsent
        if is_first:
            try:
                sent = send_with_fds(self._sock, data, fds)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._loop.call_soon(self.close, f"connection lost: {error.strerror}")
                return
            if sent == len(data):
                return
            if sent:
                data, fds = data[sent:], ()
        try:
            # Queued descriptors are duplicated: their owner may close them before the kernel has taken ours.
            held = _duplicates(fds)
        except OSError as error:
            # Nothing may follow a frame that is lost. Who hears of the end says again, or runs again, what was in it.
            self._closing = True
            self._loop.call_soon(self.close, f"no descriptor is left to send with: {error.strerror}")
            return
        if is_first:
            self._loop.add_writer(self._fd, self._on_writable)
        self._unsent.append((data, held))
        self.queued += len(data)

    def unread_bytes(self) -> int:
        """What the peer has not read of what the kernel took; 0 when it has read all, or is gone."""
        try:
            said = fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ, by its other name
        except OSError:
            return 0
        return int.from_bytes(said, sys.byteorder)

    def _on_writable(self) -> None:
        unsent = self._unsent
        while unsent:
            data, fds = unsent[0]
            try:
                sent = send_with_fds(self._sock, data, fds)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"connection lost: {error.strerror}")
                return
            if sent:
                _close_all(fds)
            self.queued -= sent
            if sent < len(data):
                unsent[0] = (data[sent:], ())
                return
            unsent.popleft()
        self._loop.remove_writer(self._fd)
        if self._closing:
            self.close(self._why)
        elif self.on_drained is not None:
            self.on_drained()

    def widen(self, size: int) -> None:
        """Have the kernel keep up to ``size`` bytes for the peer, of which it may allow less, and give it what is
        queued."""
        if self.closed:
            return
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        if self._unsent:
            self._on_writable()

    def close_when_sent(self, why: str = "") -> None:
        """Say what is queued, then close; nothing more is read. A peer that does not read has LINGER_S."""
        if self.closed:
            return
        if self._unsent:
            self.pause_reading()
            self._closing = True
            self._why = why
            self._loop.call_later(LINGER_S, self.close, why)
        else:
            self.close(why)

    def close(self, why: str) -> None:
        """Close now. Idempotent; ``on_closed`` is told once, with the reason ("" for an orderly end)."""
        if self.closed:
            return
        self.closed = True
        self.pause_reading()
        if self._unsent:
            self._loop.remove_writer(self._fd)
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        self.queued = 0
        _close_all(self._fds)
        self._fds.clear()
        self._sock.close()
        self._on_closed(why)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _duplicates(fds: Sequence[int]) -> list[int]:
    """Raises OSError when there is no room for all of them, and then keeps none."""
    held: list[int] = []
    try:
        for fd in fds:
            held.append(os.dup(fd))  # noqa: PERF401 - those that there are must be closed if one fails
    except OSError:
        _close_all(held)
        raise
    return held
