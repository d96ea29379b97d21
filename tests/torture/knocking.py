"""A program that knocks at a daemon's door as those do who must not come in, so many times a second.

    python -m tests.torture.knocking HOST:PORT FOLDER [idle]

Each line that it reads is a JSON object (``Order``), which it answers with another (``Told``). FOLDER holds what the
wrong peers show (``strangers.Wardrobe`` puts it there). With ``idle`` it runs in Linux's idle class (sched(7),
SCHED_IDLE): it gets what of the processors nobody else wants, and gives it back at once, so that what a program of the
daemon's waits for is the daemon's doing and not this one's.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypedDict

import msgspec
import uvloop

from abi.wire import join_token
from abi.wire.frames import HEADER, MSGPACK
from abi.wire.join_token import JoinToken
from abi.wire.peers import PEER_PROTOCOL, STRANGER_BYTES_MAX, Greeting, Join, PeerKind, decode
from abid.cluster import credentials, tls
from abid.cluster.link import Link, Owner
from abid.cluster.refusal import PeerRefused
from tests.daemon.cluster.hosts import client_hello

OPEN_MAX: Final = 2_000
"""At once; beyond it a knock is left out."""
LOOK_S: Final = 0.005
"""Between two looks at how many are due."""
NOBODY: Final = "0badf00d"
"""The node of who was never a member."""


class Order(TypedDict):
    kind: str
    """One of ``KINDS``."""
    per_s: float
    seconds: float


class Told(TypedDict):
    made: int
    ended: dict[str, int]
    """By how each knock ended, as this side saw it."""


class Knock(Owner):
    """One link, on which ``says`` is said when TLS is up; ``end`` is how it ended: what it was refused with, mostly."""

    def __init__(self, says: Callable[[Link], None]) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._says = says
        self._refused = ""

    def on_secured(self, link: Link) -> None:
        self._says(link)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        if kind == PeerKind.REFUSED:
            self._refused = decode(kind, payload).code
        link.close()

    def on_ended(self, link: Link, why: Any) -> None:
        if not self.end.done():
            self.end.set_result(self._refused or (why.code if why is not None else "closed"))


class Plain(asyncio.Protocol):
    """Says what it says, and waits for the end."""

    def __init__(self, says: bytes) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._says = says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._says:
            transport.write(self._says)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.end.done():
            self.end.set_result("closed")


class Attacker:
    """``folder`` holds credentials by kind, and the texts of tokens."""

    def __init__(self, address: str, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self.folder = folder
        self.hello = client_hello()
        self.count = 0

    async def attack(self, order: Order) -> Told:
        """From now on for so long, and until one knock was answered; whatever is open then is closed."""
        knock = KINDS[order["kind"]](self)
        loop = self._loop
        begin, made = loop.time(), 0
        ended: Counter[str] = Counter()
        open_now: set[asyncio.Task[str]] = set()

        def on_done(task: asyncio.Task[str]) -> None:
            open_now.discard(task)
            error = None if task.cancelled() else task.exception()
            ended["given up" if task.cancelled() else type(error).__name__ if error else task.result()] += 1

        while (since := loop.time() - begin) < order["seconds"] or not ended:
            due = min(int(since * order["per_s"]) - made, OPEN_MAX - len(open_now))
            for _ in range(due):
                task = loop.create_task(knock())
                open_now.add(task)
                task.add_done_callback(on_done)
            made += max(0, due)
            await asyncio.sleep(LOOK_S)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
        await asyncio.sleep(0)  # those that ended have told so by then
        return Told(made=made, ended=dict(ended))

    # What it does, again and again.

    def as_member(self, kind: str) -> ssl.SSLContext:
        """Shows a certificate, and believes everybody: else it would be this side that refuses."""
        context = tls.unverified()
        context.load_cert_chain(self.folder / kind / credentials.MEMBER)
        return context

    async def link(self, context: ssl.SSLContext, says: Callable[[Link], None]) -> str:
        knock = Knock(says)
        link = Link(self._loop, knock, context, accepted=False)
        try:
            await self._loop.create_connection(lambda: link, self._host, self._port)
            return await knock.end
        finally:
            link.abort(PeerRefused("no more"))

    async def plain(self, says: bytes) -> str:
        transport, protocol = await self._loop.create_connection(lambda: Plain(says), self._host, self._port)
        try:
            return await protocol.end
        finally:
            transport.abort()


Attempt = Callable[[], Coroutine[Any, Any, str]]
Kind = Callable[[Attacker], Attempt]


def greets(kind: str, **words: Any) -> Kind:
    """With the credentials of this kind, and an honest greeting but for these words."""

    def made(attacker: Attacker) -> Attempt:
        context = attacker.as_member(kind)
        us = credentials.load(attacker.folder / kind)
        assert us is not None
        honest = Greeting(PEER_PROTOCOL, us.subject.cluster, us.subject.incarnation, us.subject.node, 1, 1, "0")
        said = msgspec.structs.replace(honest, **words)
        return lambda: attacker.link(context, lambda link: link.send(PeerKind.HELLO, said))

    return made


def joins(kind: str) -> Kind:
    """With the token of this kind."""

    def made(attacker: Attacker) -> Attempt:
        token: JoinToken = join_token.parse((attacker.folder / kind).read_text())
        context = tls.unverified()
        message = Join(PEER_PROTOCOL, token.cluster, token.identity, token.secret, NOBODY, 1, "0", "nobody", b"")
        return lambda: attacker.link(context, lambda link: link.send(PeerKind.JOIN, message))

    return made


def oversized(attacker: Attacker) -> Attempt:
    def says(link: Link) -> None:
        assert link._tls is not None
        link._tls.write(HEADER.pack(STRANGER_BYTES_MAX + 1, PeerKind.JOIN, MSGPACK, 0))

    context = tls.unverified()
    return lambda: attacker.link(context, says)


def plain_text(attacker: Attacker) -> Attempt:
    return lambda: attacker.plain(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def slow(attacker: Attacker) -> Attempt:
    """Every other one says nothing at all; the rest begin a handshake, of different lengths, and do not go on."""

    def knock() -> Coroutine[Any, Any, str]:
        attacker.count += 1
        length = 1 + attacker.count % len(attacker.hello) if attacker.count % 2 else 0
        return attacker.plain(attacker.hello[:length])

    return knock


KINDS: Final[dict[str, Kind]] = {
    "wrong CA": greets("wrong CA"),
    "revoked": greets("revoked"),
    "other cluster": greets("other cluster"),
    "other incarnation": greets("other incarnation"),
    "newer major": greets("newer major", protocol=(PEER_PROTOCOL[0] + 1, 0)),
    "wrong token": joins("wrong token"),
    "used-up token": joins("used-up token"),
    "expired token": joins("expired token"),
    "plain text": plain_text,
    "over 4 KiB": oversized,
    "slow handshakes": slow,
}


async def main(address: str, folder: str, *_: str) -> None:
    attacker, loop = Attacker(address, Path(folder)), asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await attacker.attack(json.loads(line))), flush=True)


if __name__ == "__main__":
    if "idle" in sys.argv[3:]:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    uvloop.run(main(*sys.argv[1:]))
