"""One connection between two daemons: TLS over a plain transport of the loop, and frames inside it.

TLS runs in memory (``ssl.MemoryBIO``) and the transport carries bytes. So it is we who decide when a handshake is worth
its arithmetic, what is said to whom before a connection ends, and what an error is called; asyncio's own TLS decides
these by itself, and each loop differently. The arithmetic, one to some milliseconds a side, is done in a thread of its
own, for which OpenSSL lets go of the interpreter: handshakes of strangers do not make others wait.

    HELD ──begin──▶ HANDSHAKE ──▶ OPEN ──end──▶ ENDED
      │                 │                         ▲
      └─────────────────┴──────── end ────────────┘

A client's connection begins at once. One that was accepted is held when its first bytes have come, until its owner
lets it begin; so a thousand that say nothing cost a socket each, and who goes while it is held is gone at once, and
takes nobody's turn. ENDED is told to the owner once (``on_ended``); last
words may still be on their way then, and when the transport itself is gone, ``on_gone`` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import socket
import ssl
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, cast

from abi.errors import AbiError, ProtocolError
from abi.wire.frames import FrameReader, FrameTooLong, pack
from abi.wire.peers import STRANGER_BYTES_MAX, PeerKind, PeerMessage, Refused, encode
from abid.cluster.refusal import Code, PeerRefused, of_tls, refused
from abid.cluster.tls import PeerIdentity, identity_of

log = logging.getLogger(__name__)

READ_BYTES: Final = 16 * 1024
"""A TLS record holds no more (RFC 8446, 5.1), and one at a time is read."""
LINGER_S: Final = 1.0
"""How long a peer that we are done with has to read our last words."""
QUEUED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What may wait for a peer that does not read: four of the largest frames. Beyond it the connection is broken, so that
both sides know that something was lost."""
UNACKNOWLEDGED_MS_MAX: Final = 10_000
"""After this long without a sign that what we sent has come, the kernel ends the connection (RFC 5482): a member is
dead by then. Set once TLS is up: before, who waits has a time of its own."""
HELD_BYTES_MAX: Final = 16 * 1024
"""Of one that is held: what a handshake begins with is a tenth of it, and nobody says more before it is answered."""
MIN_RTT_AT: Final = 148
"""``tcpi_min_rtt`` in the kernel's ``struct tcp_info`` (linux/tcp.h, since 4.6): 32 bits, microseconds; of the last
five minutes, where net.ipv4.tcp_min_rtt_wlen is as it was."""
TLS_HANDSHAKE: Final = 0x16
"""With this every TLS connection begins (RFC 8446, 5.1)."""


class State(enum.Enum):
    HELD = enum.auto()
    HANDSHAKE = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()


class Owner(ABC):
    """Of links: each has one at a time, and hands itself over by ``link.owner``. What ``on_secured`` and ``on_frame``
    raise (AbiError) is said to the peer, and ends the link."""

    def on_accepted(self, link: Link) -> None:  # noqa: B027 - only the owner of a listening socket needs it
        """Somebody knocks."""

    def on_first_bytes(self, link: Link) -> None:
        """An accepted link would begin its handshake: ``link.begin()``, now or later."""
        link.begin()

    def on_secured(self, link: Link) -> None:  # noqa: B027 - who comes later has missed it
        """TLS is up, and the peer's certificate, if it showed one, is verified."""

    @abstractmethod
    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        """The payload is to be copied if it is to be kept."""

    @abstractmethod
    def on_ended(self, link: Link, why: AbiError | None) -> None:
        """Once a link. None: it was closed, by us or by the peer, with nothing wrong."""

    def on_gone(self, link: Link) -> None:  # noqa: B027 - only who counts sockets needs it
        """Once a link, after ``on_ended``."""


class Link(asyncio.Protocol):
    """``address`` is the peer's, as the kernel sees it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Owner, context: ssl.SSLContext, *, accepted: bool
    ) -> None:
        self.owner = owner
        self.accepted = accepted
        self.address = ""
        self.state = State.HELD
        self.identity: PeerIdentity | None = None
        """Set when the link is open, for a peer that showed a certificate."""
        self._loop = loop
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._context = context
        self._tls: ssl.SSLObject | None = None
        """Made when the handshake begins: most that knock under an attack never get there."""
        self._step: asyncio.Future[OSError | None] | None = None
        """Of the handshake, in the thread."""
        self._held_bytes = 0
        self._reader = FrameReader(STRANGER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        who = f"node {self.identity.node}" if self.identity else "a stranger"
        return f"<link with {who} at {self.address or 'no address'}: {self.state.name.lower()}>"

    @property
    def context(self) -> ssl.SSLContext:
        """With which it was made, and so with which certificate of ours."""
        return self._context

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def certificate(self) -> bytes:
        """The peer's, in DER, believed or not."""
        return (self._tls.getpeercert(binary_form=True) if self._tls is not None else None) or b""

    def set_limit(self, limit: int) -> None:
        """The largest frame from now on."""
        self._reader.limit = limit

    def begin(self) -> None:
        """Shake hands."""
        if self.state is State.HELD and self._transport is not None:
            self.state = State.HANDSHAKE
            self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=self.accepted)
            self._shake(self._tls)

    def send(self, kind: PeerKind, message: PeerMessage) -> None:
        self.send_payload(kind, encode(message))

    def send_payload(self, kind: int, payload: bytes) -> None:
        """Send a frame, or queue it; nothing once the link has ended. Raises ProtocolError for one that is too long."""
        frame = memoryview(pack(kind, payload))
        if self.state is not State.OPEN or self._tls is None:
            return
        while frame:
            frame = frame[self._tls.write(frame) :]
        self._flush()
        if self.queued > QUEUED_BYTES_MAX:
            self._end(PeerRefused(f"it does not read: {self.queued} bytes wait for it"), last_words=False)

    def refuse(self, error: AbiError) -> None:
        """Say what is wrong, and end."""
        with contextlib.suppress(ssl.SSLError):
            self.send(PeerKind.REFUSED, Refused(error.code, error.message, error.hint))
        self._end(error)

    def close(self) -> None:
        """End it with nothing wrong; what was sent still leaves."""
        self._end(None)

    def abort(self, error: AbiError) -> None:
        """End it without a word."""
        self._end(error, last_words=False)
        if self._transport is not None:  # also when last words of an end before are on their way
            self._transport.abort()

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        name = transport.get_extra_info("peername")
        self.address = str(name[0]) if name else ""
        if self.accepted:
            self.owner.on_accepted(self)
        else:
            self._loop.call_soon(self.begin)  # not now: uvloop begins to read after this, whatever we say

    def data_received(self, data: bytes) -> None:
        if self.state is State.ENDED:
            return  # it has not heard yet
        self._incoming.write(data)
        if self._tls is not None:
            if self.state is State.HANDSHAKE:
                self._shake(self._tls)
            else:
                self._advance(self._tls)
        elif self._held_bytes == 0 and data[0] != TLS_HANDSHAKE:
            self._end(refused(Code.PLAIN_TEXT, "what it says is not TLS"), last_words=False)
        else:
            self._hold(len(data))

    def _hold(self, count: int) -> None:
        """So many bytes more, of one whose turn has not come. It is read on, or we would not see it go."""
        is_first = self._held_bytes == 0
        self._held_bytes += count
        if self._held_bytes > HELD_BYTES_MAX:
            assert self._transport is not None
            self._transport.pause_reading()
        if is_first:
            self.owner.on_first_bytes(self)

    def eof_received(self) -> bool:
        self._end(None, last_words=self.state is State.OPEN)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        is_stranger = self.accepted and self.state is not State.OPEN  # of whose going there is nothing to tell
        self._end(PeerRefused(f"connection lost: {exc}") if exc and not is_stranger else None, last_words=False)
        self.owner.on_gone(self)

    # Inside.

    def _shake(self, tls: ssl.SSLObject) -> None:
        """The next step of the handshake, in a thread, which has both buffers for itself: nothing is read meanwhile."""
        assert self._step is None
        assert self._transport is not None
        self._transport.pause_reading()
        self._step = self._loop.run_in_executor(_thread(), _shaken, tls)
        self._step.add_done_callback(lambda step: self._on_step(tls, step))

    def _on_step(self, tls: ssl.SSLObject, step: asyncio.Future[OSError | None]) -> None:
        self._step = None
        if step.cancelled() or self.state is not State.HANDSHAKE:
            return  # it has ended meanwhile
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._advance(tls, step.result())

    def _advance(self, tls: ssl.SSLObject, failed: OSError | None = None) -> None:
        """Do what the bytes that are here allow; ``failed`` is how the handshake's last step ended."""
        try:
            if failed is not None:
                raise failed
            if self.state is State.HANDSHAKE:
                self.identity = identity_of(tls.getpeercert())
                self.state = State.OPEN
                self._limit_silence()
                self.owner.on_secured(self)
            # Asked for more than there is, TLS raises an error each time, which costs as much as reading.
            while self.state is State.OPEN and (self._incoming.pending or tls.pending()):
                self._read(tls)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end(None)
        except ssl.SSLError as error:
            self._end(of_tls(error))
        except FrameTooLong as error:
            self.refuse(refused(Code.OVERSIZED, error.message))
        except AbiError as error:
            self.refuse(error)
        except Exception:
            # A fault of ours, met by one peer: it loses its connection, and nobody waits for what never comes.
            log.exception("what a peer said could not be handled")
            self.refuse(ProtocolError("the daemon could not handle this; its log says why"))
        finally:
            self._flush()

    def _limit_silence(self) -> None:
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)

    @property
    def round_trip_s(self) -> float:
        """The shortest of late, as the kernel measures it: what waits in queues on either side is not in it. 0.0 where
        it says nothing."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None:
            return 0.0
        with contextlib.suppress(OSError):  # it has just ended
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, MIN_RTT_AT + 4)
            if len(told) == MIN_RTT_AT + 4:
                return float(int.from_bytes(told[MIN_RTT_AT:], sys.byteorder)) / 1e6
        return 0.0

    def _read(self, tls: ssl.SSLObject) -> None:
        data = tls.read(READ_BYTES)
        if not data:
            raise ssl.SSLZeroReturnError
        for frame in self._reader.feed(data):
            if frame.descriptors:
                raise ProtocolError("a frame names descriptors, which do not cross hosts")
            self.owner.on_frame(self, frame.kind, frame.payload)
            if self.state is not State.OPEN:
                return

    def _flush(self) -> None:
        if self._step is not None or self._transport is None or self._transport.is_closing():
            return
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def _end(self, why: AbiError | None, *, last_words: bool = True) -> None:
        """Once. With last words, the transport stays for a moment: a socket that is closed with bytes unread in it
        takes back what it sent last."""
        if self.state is State.ENDED:
            return
        was_open, self.state = self.state is State.OPEN, State.ENDED
        transport = self._transport
        if transport is not None:
            if last_words:
                if was_open and self._tls is not None:
                    with contextlib.suppress(ssl.SSLError):
                        self._tls.unwrap()
                self._flush()
                self._transport_ends(transport)
            else:
                transport.abort()
        self.owner.on_ended(self, why)

    def _transport_ends(self, transport: asyncio.Transport) -> None:
        if transport.is_closing():
            return
        transport.resume_reading()
        with contextlib.suppress(OSError):
            transport.write_eof()
        self._loop.call_later(LINGER_S, transport.abort)


def _shaken(tls: ssl.SSLObject) -> OSError | None:
    """One step; None when the handshake is done, ``SSLWantReadError`` when the peer has to say something now."""
    try:
        tls.do_handshake()
    except OSError as error:
        return error
    return None


@cache
def _thread() -> ThreadPoolExecutor:
    """One for all links: they have their turn, and take one core at most."""
    return ThreadPoolExecutor(1, "abid tls")
