"""One member at the other end of a greeted link."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from abi.errors import AbiError, ProtocolError
from abi.wire.frames import FRAME_BYTES_MAX
from abi.wire.peers import Greeting, PeerKind, Ping, decode
from abid.cluster.link import Link, Owner, State
from abid.cluster.refusal import said
from abid.cluster.tls import PeerIdentity

if TYPE_CHECKING:
    from abid.cluster.peers import Peers

_NOT_AGAIN = frozenset(
    (PeerKind.HELLO, PeerKind.WELCOME, PeerKind.ASK_AUTHORITY, PeerKind.AUTHORITY, PeerKind.JOIN, PeerKind.ADMITTED)
)
"""What has its place before the greeting."""


class Peer(Owner):
    """``words`` is what it said in its greeting; ``node`` is what its certificate says."""

    def __init__(self, peers: Peers, link: Link, identity: PeerIdentity, words: Greeting) -> None:
        self.identity = identity
        self.node = identity.node
        self.words = words
        self.orderly = False
        """One of us has said goodbye, or that it makes another connection."""
        self.is_made_anew = False
        """One of us makes another connection in place of this one."""
        self.why: AbiError | None = None
        """What went wrong, when the link has ended in disorder and it is known."""
        self._peers = peers
        self._link = link
        self._pings: dict[int, asyncio.Future[bool]] = {}
        self._last_ping = 0
        link.set_limit(FRAME_BYTES_MAX)
        link.owner = self

    def __repr__(self) -> str:
        return f"<peer {self.node} at {self._link.address}, started {self.words.started} times>"

    @property
    def address(self) -> str:
        """From which it speaks; where it listens is in ``words.addresses``."""
        return self._link.address

    @property
    def dialled(self) -> bool:
        """Whether we dialled it, not it us."""
        return not self._link.accepted

    @property
    def said(self) -> tuple[int, int]:
        """When it greeted, on its own scale: later greetings of the same host are greater."""
        return self.words.started, self.words.moment

    @property
    def queued(self) -> int:
        """Bytes that wait for it to read; see ``link.QUEUED_BYTES_MAX``."""
        return self._link.queued

    @property
    def round_trip_s(self) -> float:
        """See ``Link.round_trip_s``."""
        return self._link.round_trip_s

    @property
    def context(self) -> ssl.SSLContext:
        """See ``Link.context``."""
        return self._link.context

    @property
    def is_open(self) -> bool:
        return self._link.state is State.OPEN

    def send(self, kind: int, payload: bytes) -> None:
        """Send a frame, or queue it. One for a link that has ended is dropped: ``on_closed`` says so for all of them.

        Raises ProtocolError for a frame that is too long.
        """
        self._link.send_payload(kind, payload)

    def say_goodbye(self) -> None:
        """End the connection in order."""
        if self.is_open:
            self.orderly = True
            self._link.send_payload(PeerKind.GOODBYE, b"")
            self._link.close()

    def make_anew(self) -> None:
        """End the connection in order. The caller makes another one."""
        if self.is_open:
            self.orderly = self.is_made_anew = True
            self._link.send_payload(PeerKind.ANEW, b"")
            self._link.close()

    def refuse(self, error: AbiError) -> None:
        """End the connection, and say why."""
        self.why = self.why or error
        self._link.refuse(error)

    def abandon(self, error: AbiError) -> None:
        """It is not there any more: end the connection without a word."""
        self.why = self.why or error
        self._link.abort(error)

    async def answers(self, timeout_s: float) -> bool:
        """Whether somebody is alive at the other end."""
        self._last_ping = number = self._last_ping + 1
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pings[number] = answer
        self._link.send(PeerKind.PING, Ping(number))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return False
        finally:
            del self._pings[number]

    # The owner of the link.

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        if kind == PeerKind.GOODBYE:
            self.orderly = True
            link.close()
        elif kind == PeerKind.ANEW:
            self.orderly = self.is_made_anew = True
            link.close()
        elif kind == PeerKind.PING:
            link.send(PeerKind.PONG, decode(kind, payload))
        elif kind == PeerKind.PONG:
            answer = self._pings.get(decode(kind, payload).number)
            if answer is not None and not answer.done():
                answer.set_result(True)
        elif kind == PeerKind.REFUSED:
            self.why = said(decode(kind, payload))
            link.close()
        elif kind in _NOT_AGAIN:
            raise ProtocolError(f"a frame of kind {PeerKind(kind).name} has no place after the greeting")
        else:
            self._peers.owner.on_message(self, kind, bytes(payload))

    def on_ended(self, link: Link, why: AbiError | None) -> None:
        self.why = self.why or why
        for answer in self._pings.values():
            if not answer.done():
                answer.set_result(False)
        self._peers.on_peer_ended(self)
