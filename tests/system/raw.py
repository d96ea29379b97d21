"""A client without manners: frames by hand over the daemon's socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

import cloudpickle
import msgspec

from abi.interpreter import this_interpreter
from abi.wire.codec import decode_items, decoders, encode_items
from abi.wire.schema import Function, Kind, Options, Task
from tests.system.harness import WAIT_S, Place

HEADER = struct.Struct("<IBBH")
MSGPACK, JSON = 1, 2


def hello(role: str = "control", **changes: Any) -> dict[str, Any]:
    """A greeting as a good client says it, but for ``changes``."""
    words: dict[str, Any] = {
        "protocol": [1, 0],
        "role": role,
        "version": "0.1.0",
        "python": "3.11",
        "uid": os.getuid(),
        "pid": os.getpid(),
    }
    if role == "session":
        words["program"] = {
            "interpreter": msgspec.to_builtins(this_interpreter()),
            "sys_path": [],
            "directory": "/",
            "environment": dict(os.environ),
            "main_path": "",
            "name": "raw",
        }
    return words | changes


class Raw:
    """One connection."""

    def __init__(self, place: Place) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(place.runtime_dir / "abid.sock"))
        self._received = bytearray()
        self.welcome: dict[str, Any] = {}

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, kind: int, payload: bytes, codec: int = MSGPACK, fds: Sequence[int] = (), count: int = -1) -> None:
        """One frame; ``count`` is what it says of its descriptors, if that is not so."""
        data = HEADER.pack(len(payload), kind, codec, len(fds) if count < 0 else count) + payload
        sent = socket.send_fds(self.sock, [data], fds) if fds else 0
        self.sock.sendall(data[sent:])

    def say(self, kind: Kind, *items: Any, fds: Sequence[int] = ()) -> None:
        self.send(kind, encode_items(list(items)), fds=fds)

    def request(self, op: str, **words: Any) -> dict[str, Any]:
        """A control request and its answer."""
        self.send(Kind.REQUEST, json.dumps({"id": 1, "op": op, **words}).encode(), JSON)
        return self.object(Kind.RESPONSE)

    def frame(self) -> tuple[int, bytes]:
        """The next frame; EOFError at the end."""
        length, kind, _codec, _fds = HEADER.unpack(self._take(8))
        return kind, self._take(length)

    def object(self, *kinds: int) -> dict[str, Any]:
        """The next frame of one of these kinds, which is JSON; others are dropped."""
        while True:
            kind, payload = self.frame()
            if kind in kinds:
                return dict(json.loads(payload))

    def items(self, wanted: Kind) -> list[Any]:
        """The items of the next frame of this kind; others are dropped."""
        while True:
            kind, payload = self.frame()
            if kind == wanted:
                return decode_items(decoders([wanted]), kind, payload)
            assert kind != Kind.REFUSED, payload

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def greet(self, role: str = "control", **changes: Any) -> Raw:
        self.send(Kind.HELLO, json.dumps(hello(role, **changes)).encode(), JSON)
        kind, payload = self.frame()
        assert kind == Kind.WELCOME, payload
        self.welcome = json.loads(payload)
        return self

    def refusal(self) -> dict[str, Any]:
        """Why we are not wanted; then the connection must end."""
        said = self.object(Kind.REFUSED)
        with contextlib.suppress(ConnectionResetError):  # what we sent too much was not read
            assert self.sock.recv(1) == b""
        return said

    def define(self, function: Any, **options: Any) -> None:
        """Function 0 and options 0 of this session."""
        self.say(Kind.FUNCTION, Function(0, os.urandom(16), "raw.function", cloudpickle.dumps(function)))
        self.say(Kind.OPTIONS, Options(0, **options))

    def submit(self, seq: int, *arguments: Any) -> None:
        self.say(Kind.SUBMIT, Task(seq, 0, 0, cloudpickle.dumps((arguments, {}))))
