"""Members of a cluster in one process: certificates, an owner that writes down what it is told, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from abi.wire.peers import Join, Renew
from abid.cluster import credentials as stored
from abid.cluster import secret, tls
from abid.cluster.authority import Authority
from abid.cluster.certificates import Subject, new_key_and_request
from abid.cluster.credentials import Credentials
from abid.cluster.door import Stranger
from abid.cluster.link import Link, Owner
from abid.cluster.peer import Peer
from abid.cluster.peers import Peers

CLUSTER = "c1a57e5000000001"
LOCALHOST = "127.0.0.1"
WAIT_S = 20.0
"""For what happens within milliseconds on a machine that has time."""


def run(story: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """On the daemon's loop, unless another is named."""
    with asyncio.Runner(loop_factory=loop_factory or uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(story, 3 * WAIT_S))


class Ca:
    """An authority, and members' credentials by it in a directory."""

    def __init__(self, folder: Path, cluster: str = CLUSTER) -> None:
        self.authority = Authority.found(cluster, time.time())
        self.secret = secret.draw()
        self._folder = folder

    def member(self, node: str, incarnation: int = 1, *, now: float | None = None, name: str = "") -> Credentials:
        subject = Subject(node, self.authority.cluster, incarnation)
        key, request = new_key_and_request(subject)
        certificate = self.authority.sign(request, subject, time.time() if now is None else now)
        folder = self._folder / (name or f"{node}-{incarnation}-{self.authority.cluster}")
        return stored.store_member(folder, self.authority.certificate, certificate, key, self.secret)


class Host:
    """A member. ``told`` is what its owner was told, in order."""

    def __init__(self, credentials: Credentials, started: int = 1) -> None:
        self.peers = Peers(asyncio.get_running_loop(), self, credentials, started)
        self.address = ""
        self.told: list[tuple[Any, ...]] = []
        self.revoked: set[str] = set()
        self.left: set[str] = set()
        self.there: set[str] = set()
        self.let_in = True
        self.on_ask: Callable[[Stranger, Join | Renew], None] = lambda stranger, message: None
        self._changed = asyncio.Event()

    @property
    def node(self) -> str:
        return self.peers.node

    async def open(self, host: str = LOCALHOST) -> Host:
        port = await self.peers.listen([host], 0)
        self.address = f"{host}:{port}"
        self.peers.addresses = (self.address,)
        return self

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def until_told(self, *words: Any) -> None:
        await self.until(lambda: words in self.told)

    def _tell(self, *words: Any) -> None:
        self.told.append(words)
        self._changed.set()

    # The owner of the peers.

    def on_connected(self, peer: Peer) -> None:
        self._tell("connected", peer.node)

    def on_message(self, peer: Peer, kind: int, payload: bytes) -> None:
        self._tell("message", peer.node, kind, payload)

    def on_closed(self, peer: Peer, orderly: bool) -> None:
        self._tell("closed", peer.node, orderly)

    def on_stranger(self, stranger: Stranger, message: Join | Renew) -> None:
        self._tell("stranger", message)
        self.on_ask(stranger, message)

    def is_revoked(self, node: str) -> bool:
        return node in self.revoked

    def has_left(self, node: str) -> bool:
        return node in self.left

    def was_there(self, node: str, within_s: float) -> bool:
        return node in self.there

    def is_let_in(self, peer: Peer) -> bool:
        return self.let_in

    def on_copy(self, twin: Peer, address: str) -> None:
        self._tell("copy", twin.node)

    def on_stray(self, subject: Subject) -> None:
        self._tell("stray", subject.node, subject.incarnation)


@contextlib.asynccontextmanager
async def hosts(*credentials: Credentials) -> AsyncIterator[list[Host]]:
    """Listening on loopback, on ports that the kernel chose."""
    opened = [await Host(each).open() for each in credentials]
    try:
        yield opened
    finally:
        for host in opened:
            host.peers.close()


class Wire(Owner):
    """The other end of a link, in the hands of a test: it notes frames and says what the test wants."""

    def __init__(self) -> None:
        self.secured: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.frames: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def dial(self, address: str, context: Any, *, source: str | None = None) -> Link:
        loop, (host, _, port) = asyncio.get_running_loop(), address.rpartition(":")
        local = (source, 0) if source else None
        _, link = await loop.create_connection(
            lambda: Link(loop, self, context, accepted=False), host, int(port), local_addr=local
        )
        return link

    async def frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(WAIT_S):
            return await self.frames.get()

    def on_secured(self, link: Link) -> None:
        self.secured.set_result(link)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        self.frames.put_nowait((kind, bytes(payload)))

    def on_ended(self, link: Link, why: Any) -> None:
        self.ended.set_result(why)
        if not self.secured.done():
            self.secured.cancel()


def client_hello() -> bytes:
    """The first bytes of an honest handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.unverified().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()
