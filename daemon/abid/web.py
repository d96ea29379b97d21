"""A tiny HTTP server for those who watch: GET of a few fixed paths, one request to a connection.

On a Unix socket, `metrics.sock` (0600) in the runtime directory; and on 127.0.0.1 if `network.metrics_port` says so.
There anybody on this host may ask, and any page in a browser can make it ask: a name that an attacker's DNS points
to 127.0.0.1 is refused by its Host header (DNS rebinding).

It shares the daemon's loop, so everything is bounded: the bytes of a request, the connections at one time, and the
life of each. Who is too slow is dropped; when too many come the oldest goes, so that idle strangers never keep the
one out who asks now.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

import msgspec

from abi.config import Config
from abi.errors import ConfigError
from abi.transport import listen

log = logging.getLogger(__name__)

SOCKET_NAME: Final = "metrics.sock"
LOOPBACK: Final = "127.0.0.1"
OWN_NAMES: Final = frozenset({"localhost", LOOPBACK, "[::1]"})
"""What a request over TCP may call this host. The last is that of somebody who forwards a port of his own."""
REQUEST_BYTES_MAX: Final = 8 * 1024
"""A scraper sends some hundred bytes, a browser with many cookies some thousands."""
LIFE_S: Final = 5.0
"""From connecting to the last byte of the answer. Both are on this host: it takes a millisecond."""
CONNECTIONS_MAX: Final = 16
"""Prometheus has one, a person or two another. Each costs a descriptor and at most a request's bytes."""
REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Page(msgspec.Struct, frozen=True):
    """One answer."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


class Web:
    """The server: what it serves, where it listens, who is connected."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pages: Mapping[str, Callable[[], Page]]) -> None:
        self.loop = loop
        self.pages = pages
        self.connections: dict[Connection, None] = {}
        """In the order in which they came."""
        self.port = 0
        """On loopback; 0 for none."""
        self._path = ""
        self._servers: list[asyncio.Server] = []

    async def open(self, runtime_dir: Path, config: Config) -> None:
        """Listen, in the directory and, if configured, on loopback. **The caller holds the daemon's lock.** Raises
        ConfigError for a port that is taken, OSError for a socket that cannot be made."""
        self._path = str(runtime_dir / SOCKET_NAME)
        sock = listen(self._path)
        self._servers.append(await self.loop.create_unix_server(lambda: Connection(self, by_tcp=False), sock=sock))
        port = config.integer("network.metrics_port")
        if port and config.boolean("network.enabled"):
            try:
                server = await self.loop.create_server(lambda: Connection(self, by_tcp=True), LOOPBACK, port)
            except OSError as problem:
                self.close()
                why = "is taken" if problem.errno == errno.EADDRINUSE else f"cannot be used: {problem}"
                raise ConfigError(
                    f"network.metrics_port: {LOOPBACK}:{port} {why}",
                    hint="choose another, or 0 for none: metrics are always at metrics.sock in the runtime directory",
                ) from None
            self._servers.append(server)
            self.port = port

    def close(self) -> None:
        """Stop listening and drop who is connected."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self.connections):
            connection.drop()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            log.debug("%s was removed by somebody else", self._path)


class Connection(asyncio.Protocol):
    """One client, from connecting to its one answer."""

    def __init__(self, web: Web, *, by_tcp: bool) -> None:
        self._web = web
        self._by_tcp = by_tcp
        self._request = bytearray()
        self._transport: asyncio.Transport
        self._end: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own, which inherits nothing from asyncio
        self._end = self._web.loop.call_later(LIFE_S, self.drop)
        connections = self._web.connections
        connections[self] = None
        if len(connections) > CONNECTIONS_MAX:
            next(iter(connections)).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        self._web.connections.pop(self, None)

    def drop(self) -> None:
        """Now, whatever has not been sent."""
        self._web.connections.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._request += data
        end = self._request.find(b"\r\n\r\n", 0, REQUEST_BYTES_MAX)
        if end >= 0:
            self._answer(bytes(self._request[:end]))
        elif len(self._request) >= REQUEST_BYTES_MAX:
            self._send(Page(431, f"a request has at most {REQUEST_BYTES_MAX} bytes\n"))

    def _answer(self, head: bytes) -> None:
        request = understand(head)
        if isinstance(request, Page):
            self._send(request)
            return
        if self._by_tcp and not request.names_this_host:
            self._send(Page(421, "the Host header must name this host: localhost or 127.0.0.1\n"))
            return
        self._send(self._page(request), with_text=request.method != "HEAD")

    def _page(self, request: Request) -> Page:
        if request.method not in ("GET", "HEAD"):
            return Page(405, "there is only GET and HEAD\n")
        make = self._web.pages.get(request.path)
        if make is None:
            return Page(404, f"there are {', '.join(self._web.pages)}\n")
        try:
            return make()
        except Exception:  # a fault of ours: it must not end a daemon that works
            log.exception("%s could not be made", request.path)
            return Page(500, "the daemon could not make this page; its log says why\n")

    def _send(self, page: Page, *, with_text: bool = True) -> None:
        self._request.clear()
        body = page.text.encode()
        lines = [
            f"HTTP/1.1 {page.status} {REASONS[page.status]}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        if page.status == 405:
            lines.append("Allow: GET, HEAD")
        head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
        self._transport.write(head + body if with_text else head)
        # Nothing more is read, and all is sent before it closes; `_end` sees to it that this is soon.
        self._transport.close()


class Request(msgspec.Struct, frozen=True):
    """What is looked at of a request."""

    method: str
    path: str
    hosts: tuple[str, ...]
    """The values of its Host headers, of which there should be one."""

    @property
    def names_this_host(self) -> bool:
        """Whether it was meant for this host and not for a name that somebody made lead here."""
        if len(self.hosts) != 1:
            return False
        name = self.hosts[0].lower()
        host, colon, port = name.rpartition(":")
        return (host if colon and port.isdigit() else name) in OWN_NAMES


def understand(head: bytes) -> Request | Page:
    """The request of a head (RFC 9112), or the page that says what is wrong with it."""
    try:
        first, *fields = head.decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:  # UnicodeDecodeError is one
        return Page(400, "this is no request of HTTP/1.1\n")
    if not (method.isalpha() and method.isupper() and target.startswith("/") and version.startswith("HTTP/")):
        return Page(400, "this is no request of HTTP/1.1\n")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        return Page(505, "HTTP/1.1 is spoken here\n")
    hosts = []
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon or not name or name != name.strip():
            return Page(400, "there is a header that is none\n")
        if name.lower() == "host":
            hosts.append(value.strip())
    return Request(method, target.partition("?")[0], tuple(hosts))
