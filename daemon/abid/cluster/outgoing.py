"""One dial of ours: from the address that answered to the greeting that was returned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from abi.errors import AbiError
from abi.wire.peers import PeerKind, decode
from abid.cluster.dialling import Runner
from abid.cluster.link import Link
from abid.cluster.refusal import Code, PeerRefused, refused, said

if TYPE_CHECKING:
    from abid.cluster.peer import Peer
    from abid.cluster.peers import Peers


class Outgoing(Runner):
    """``node``: who must answer, or None. ``peer`` ends with the connection, be it this one or one that was made by
    somebody else meanwhile, or with why there is none."""

    def __init__(self, peers: Peers, loop: asyncio.AbstractEventLoop, node: str | None) -> None:
        self.peer: asyncio.Future[Peer] = loop.create_future()
        self._peers = peers
        self._node = node
        self._link: Link | None = None

    def judge(self, link: Link) -> None:
        """Whether this is whom we look for. Raises PeerRefused."""
        assert link.identity is not None  # of a context that demands a certificate
        self._peers.judge(link.identity)
        if self._node not in (None, link.identity.node):
            raise refused(Code.OTHER_NODE, f"node {link.identity.node} answers there, not {self._node}")

    def succeed(self, peer: Peer) -> None:
        if not self.peer.done():
            self.peer.set_result(peer)
        self._let_go()

    def fail(self, why: AbiError) -> None:
        if not self.peer.done():
            self.peer.set_exception(why)
        self._let_go()

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        if not self.peer.cancel() and not self.peer.cancelled():
            self.peer.exception()  # so that nobody is told that nobody asked
        self._let_go()

    def _let_go(self) -> None:
        """The link, unless a peer has it by now."""
        link, self._link = self._link, None
        if link is not None and link.owner is self:
            link.close()

    # The owner of the link.

    def on_secured(self, link: Link) -> None:
        self._link = link
        self._peers.on_dialled(self, link)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        assert link.identity is not None
        if kind == PeerKind.WELCOME:
            self._peers.connect(link, self._peers.read_greeting(link.identity, kind, payload))
        elif kind == PeerKind.REFUSED:
            self._end(link, said(decode(kind, payload)))
            link.close()
        else:
            raise refused(Code.PROTOCOL, f"HELLO was answered by a frame of kind {kind}")

    def on_ended(self, link: Link, why: AbiError | None) -> None:
        self._end(link, why or PeerRefused("it closed the connection before it had greeted"))

    def _end(self, link: Link, why: AbiError) -> None:
        assert link.identity is not None
        self._peers.on_dial_ended(self, link.identity.node, why)
