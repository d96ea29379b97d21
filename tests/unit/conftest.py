"""A daemon that says only what a test told it to, on a real Unix socket in a directory of its own."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abi import transport

HEADER = struct.Struct("<IBBH")
HELLO, WELCOME, REFUSED, REQUEST, RESPONSE, EVENT = range(1, 7)
Object = dict[str, Any]
# What a request is answered with: events, then {"result": …}, {"error": …} or {"hang up": …} last.
Script = Callable[[Object], list[Object]]


class ScriptedDaemon:
    """Answers each op by its script and fails on any other; keeps what it was asked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.welcome: Object = {"protocol": [1, 0], "version": "0.1.0", "node": "n", "host": "h", "pid": 1}
        self.refusal: Object | None = None
        self.scripts: dict[str, Script] = {}
        self.hellos: list[Object] = []
        self.requests: list[Object] = []
        self.raw: bytes | None = None  # sent instead of anything sensible
        self._listener = transport.listen(path)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def on(self, op: str, *answers: Object) -> None:
        """Answer `op` with events, and last the result or error."""
        self.scripts[op] = lambda request: list(answers)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(sock,), daemon=True).start()

    def _serve_one(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as reader:
            try:
                self._converse(sock, reader)
            except ConnectionError:
                return  # the client has gone, as it may

    def _converse(self, sock: socket.socket, reader: Any) -> None:
        while header := reader.read(HEADER.size):
            length, kind, codec, descriptors = HEADER.unpack(header)
            assert (codec, descriptors) == (2, 0)
            message = json.loads(reader.read(length))
            if self.raw is not None:
                sock.sendall(self.raw)
                return
            if kind == HELLO:
                self.hellos.append(message)
                if self.refusal is not None:
                    send(sock, REFUSED, self.refusal)
                    return
                send(sock, WELCOME, self.welcome)
            else:
                self.requests.append(message)
                if not self._answer(sock, message):
                    return

    def _answer(self, sock: socket.socket, request: Object) -> bool:
        script = self.scripts.get(request["op"])
        answers = script(request) if script else [{"error": {"code": "internal", "message": f"unscripted {request}"}}]
        for answer in answers:
            if "hang up" in answer:
                return False
            kind = RESPONSE if answer.keys() & {"result", "error"} else EVENT
            send(sock, kind, {"id": request["id"], **(answer if kind == RESPONSE else {"event": answer})})
        return True


def send(sock: socket.socket, kind: int, message: Object) -> None:
    payload = json.dumps(message).encode()
    sock.sendall(HEADER.pack(len(payload), kind, 2, 0) + payload)


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    """A scripted daemon, and `ABI_SOCKET` pointing at it."""
    directory = tmp_path / "run"
    directory.mkdir(0o700)
    path = str(directory / "abid.sock")
    monkeypatch.setenv("ABI_SOCKET", path)
    daemon = ScriptedDaemon(path)
    yield daemon
    daemon.close()


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`ABI_RUNTIME_DIR` pointing at a directory where no daemon is."""
    monkeypatch.delenv("ABI_SOCKET", raising=False)
    monkeypatch.setenv("ABI_RUNTIME_DIR", str(tmp_path))
    return str(tmp_path)
