"""The tiny HTTP server over real sockets: who is answered, who is dropped, and that nobody disturbs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from abi import config
from abi.errors import ConfigError
from abid import web
from abid.web import Page, Request, Web, understand
from tests.ports import free_tcp_port

GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
LISTENS = "0A"
"""The state of a socket that does, in /proc/net/tcp."""
Story = Callable[[], Awaitable[None]]


def configured(**environ: str) -> config.Config:
    return config.load(environ={"HOME": "/nonexistent", **environ})


class Server:
    """A server on a loop of its own, for stories that are coroutines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = uvloop.new_event_loop()
        self.made = 0
        self.web = Web(self.loop, {"/metrics": self.page, "/broken": self.broken})

    @property
    def path(self) -> str:
        return str(self.folder / "metrics.sock")

    def page(self) -> Page:
        self.made += 1
        return Page(200, "abi_ready 1\n", "text/plain; version=0.0.4")

    def broken(self) -> Page:
        raise KeyError("a fault of ours")

    def open(self, **environ: str) -> None:
        self.loop.run_until_complete(self.web.open(self.folder, configured(**environ)))

    def tell(self, story: Story) -> None:
        self.loop.run_until_complete(asyncio.wait_for(story(), 30))

    async def ask(self, request: bytes, port: int = 0) -> bytes:
        """All that is answered, to the end."""
        reader, writer = await self.connect(port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    async def connect(self, port: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if port:
            return await asyncio.open_connection("127.0.0.1", port)
        return await asyncio.open_unix_connection(self.path)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Turn by turn; the story has a time limit."""
        while not is_so():  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0)

    def status_of(self, request: bytes, port: int = 0) -> int:
        """Of an answer that is as long as it says."""
        answer = self.loop.run_until_complete(asyncio.wait_for(self.ask(request, port), 30))
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        assert len(body) == (0 if request.startswith(b"HEAD ") else int(length[1]))
        return int(head.split(b" ", 2)[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.web.close()
    made.loop.run_until_complete(asyncio.sleep(0))
    made.loop.close()


def test_one_request_one_answer(server: Server) -> None:
    server.open()

    async def story() -> None:
        head, _, body = (await server.ask(GET)).partition(b"\r\n\r\n")
        assert body == b"abi_ready 1\n"
        assert head.split(b"\r\n") == [
            b"HTTP/1.1 200 OK",
            b"Content-Type: text/plain; version=0.0.4",
            b"Content-Length: 12",
            b"Cache-Control: no-store",
            b"X-Content-Type-Options: nosniff",
            b"Connection: close",
        ]
        head, _, body = (await server.ask(GET.replace(b"GET", b"HEAD"))).partition(b"\r\n\r\n")
        assert (b"Content-Length: 12" in head, body) == (True, b"")

    server.tell(story)


def test_only_we_may_connect_and_the_socket_goes_with_the_server(server: Server) -> None:
    server.open()
    found = os.stat(server.path)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    server.web.close()
    assert not os.path.exists(server.path)


def test_alone_no_port_is_opened(server: Server) -> None:
    server.open()
    assert server.web.port == 0
    port = str(free_tcp_port())
    server.web.close()
    server.open(ABI_NETWORK_METRICS_PORT=port, ABI_NETWORK_ENABLED="false")
    assert server.web.port == 0
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", int(port))) != 0


def test_loopback_on_demand_and_only_loopback(server: Server) -> None:
    port = free_tcp_port()
    server.open(ABI_NETWORK_METRICS_PORT=str(port))
    assert server.status_of(GET, port) == 200
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    at_port = [words[1] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == LISTENS]
    assert at_port == [f"0100007F:{port:04X}"]
    assert server.status_of(GET) == 200


def test_a_port_that_is_taken(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"network.metrics_port: 127.0.0.1:{port} is taken"):
            server.open(ABI_NETWORK_METRICS_PORT=str(port))
    assert not os.path.exists(server.path)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:9100", 200), ("127.0.0.1", 200), ("127.0.0.1:1", 200), ("[::1]:9100", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example:80", 421), ("", 421),
        ("localhost:", 421), ("localhost, evil.example", 421), ("127.0.0.2", 421), ("0.0.0.0", 421),
    ],
)  # fmt: skip
def test_the_host_header_over_tcp(server: Server, host: str, status: int) -> None:
    port = free_tcp_port()
    server.open(ABI_NETWORK_METRICS_PORT=str(port))
    request = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert server.status_of(request, port) == status
    assert server.made == (status == 200)
    assert server.status_of(request) == 200  # where only we may connect, nobody can be lured


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: evil.example\r\n"])
def test_no_host_or_two_over_tcp(server: Server, hosts: bytes) -> None:
    port = free_tcp_port()
    server.open(ABI_NETWORK_METRICS_PORT=str(port))
    assert server.status_of(b"GET /metrics HTTP/1.1\r\n" + hosts + b"\r\n", port) == 421


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", 200),
        (b"GET /metrics HTTP/1.0", 200),
        (b"GET /metrics?name=x HTTP/1.1", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/ HTTP/1.1", 404),
        (b"GET /../etc/passwd HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /nowhere HTTP/1.1", 405),
        (b"GET /metrics HTTP/2.0", 505),
        (b"GET /metrics", 400),
        (b"GET  /metrics HTTP/1.1", 400),
        (b"GET http://localhost/metrics HTTP/1.1", 400),
        (b"get /metrics HTTP/1.1", 400),
        (b"\x16\x03\x01\x02", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"", 400),
        (b"GET /broken HTTP/1.1", 500),
    ],
)
def test_what_is_asked(server: Server, request_line: bytes, status: int) -> None:
    server.open()
    assert server.status_of(request_line + b"\r\nHost: localhost\r\n\r\n") == status
    assert server.status_of(GET) == 200  # it goes on


@pytest.mark.parametrize("field", [b"no colon", b" Host: folded", b": nameless", b"Host : a"])
def test_headers_that_are_none(server: Server, field: bytes) -> None:
    server.open()
    assert server.status_of(b"GET /metrics HTTP/1.1\r\n" + field + b"\r\n\r\n") == 400


def test_a_request_in_pieces(server: Server) -> None:
    server.open()

    async def story() -> None:
        reader, writer = await server.connect()
        for index in range(len(GET)):
            writer.write(GET[index : index + 1])
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()

    server.tell(story)


def test_a_request_without_end_is_bounded(server: Server) -> None:
    server.open()
    head = b"GET /metrics HTTP/1.1\r\nX: "
    fits = head + b"a" * (web.REQUEST_BYTES_MAX - len(head) - 4) + b"\r\n\r\n"
    assert server.status_of(fits) == 200
    assert server.status_of(fits[:-4] + b"a\r\n\r\n") == 431
    assert server.status_of(head + b"a" * 100_000) == 431


def test_who_says_nothing_is_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LIFE_S", 0.05)
    server.open()

    async def story() -> None:
        reader, writer = await server.connect()
        writer.write(GET[:10])
        with pytest.raises(ConnectionError):  # or the end, whichever the kernel tells first
            if await reader.read() == b"":
                raise ConnectionResetError
        writer.close()

    server.tell(story)
    assert not server.web.connections


def test_who_does_not_read_is_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of more than the kernel keeps, to a client that takes none of it."""
    monkeypatch.setattr(web, "LIFE_S", 3600.0)
    made = 0

    def page() -> Page:
        nonlocal made
        made += 1
        return Page(200, "x" * 30_000_000)

    server.web.pages = {"/metrics": page}
    server.open()

    async def story() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await server.loop.sock_connect(sock, server.path)
        await server.loop.sock_sendall(sock, GET)
        await server.until(lambda: made == 1)
        (connection,) = server.web.connections
        assert not connection._end.cancelled()
        connection.drop()  # its time is over
        assert not server.web.connections
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := await server.loop.sock_recv(sock, 1 << 20):
                received += len(data)
        assert received < 30_000_000
        sock.close()

    server.tell(story)


def test_idle_strangers_do_not_keep_out_who_asks(server: Server) -> None:
    server.open()

    async def story() -> None:
        idle = [await server.connect() for _ in range(100)]
        assert (await server.ask(GET)).startswith(b"HTTP/1.1 200 ")
        assert len(server.web.connections) <= web.CONNECTIONS_MAX
        for _, writer in idle:
            writer.close()

    server.tell(story)


def test_what_follows_a_request_is_not_read(server: Server) -> None:
    server.open()

    async def story() -> None:
        answer = await server.ask(GET + GET + b"nonsense")
        assert answer.count(b"HTTP/1.1 ") == 1

    server.tell(story)
    assert server.made == 1


def test_closing_drops_who_is_connected(server: Server) -> None:
    server.open()

    async def story() -> None:
        reader, writer = await server.connect()
        await server.until(lambda: bool(server.web.connections))
        server.web.close()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    server.tell(story)


def test_a_request_understood() -> None:
    head = b"GET /metrics?x HTTP/1.1\r\nhOsT:  LocalHost:9 \r\nAccept: */*"
    assert understand(head) == Request("GET", "/metrics", ("LocalHost:9",))
