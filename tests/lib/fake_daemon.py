"""A daemon of a few lines for the client's tests: it speaks the wire, runs what it is told to, and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from abi.pickling import dumps_value, loads_arguments, loads_function
from abi.wire.codec import decode_items, decoders, encode_items
from abi.wire.frames import FrameReader, pack
from abi.wire.schema import End, EndKind, Function, Item, Kind, Options, Task

HEARS = (
    Kind.FUNCTION, Kind.OPTIONS, Kind.SUBMIT, Kind.PUT, Kind.WANT, Kind.BORROW, Kind.RELEASE, Kind.CANCEL, Kind.BYE,
)  # fmt: skip


class FakeDaemon:
    """Answers over one end of a socketpair, in a thread. ``on_task`` returns the ends to send for one task.

    ``heard`` is everything it was told, in order. What has no place on the wire fails the test at ``close``.
    """

    def __init__(self, sock: socket.socket, on_task: Callable[[FakeDaemon, Task], list[End]] | None = None) -> None:
        self.sock = sock
        self.heard: list[tuple[Kind, Any]] = []
        self.functions: dict[int, Callable[..., Any]] = {}
        self.options: dict[int, Options] = {}
        self.fds: list[int] = []
        self.problem: BaseException | None = None
        self._on_task = on_task or FakeDaemon.run
        self._table = decoders(HEARS)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def run(self, task: Task) -> list[End]:
        """Really runs it, here."""
        args, kwargs = loads_arguments(task.arguments)
        payload, size, blob, nested = dumps_value(self.functions[task.function](*args, **kwargs))
        assert blob is None
        return [End(task.seq, EndKind.OK, payload, 1, size, 1000, nested)]

    def say(self, kind: Kind, *items: Item, fds: tuple[int, ...] = ()) -> None:
        frame = pack(kind, encode_items(list(items)), descriptors=len(fds))
        if fds:
            socket.send_fds(self.sock, [frame], list(fds))
        else:
            self.sock.sendall(frame)

    def of(self, kind: Kind) -> list[Any]:
        return [item for each, item in self.heard if each == kind]

    def until(self, condition: Callable[[], bool], timeout: float = 10) -> None:
        """Waits until what it heard fulfils ``condition``."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), f"heard only {self.heard}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self.sock.close()
        for fd in self.fds:
            os.close(fd)
        if self.problem is not None:
            raise self.problem

    def _serve(self) -> None:
        reader = FrameReader()
        try:
            while True:
                data, fds, _flags, _address = socket.recv_fds(self.sock, 1 << 20, 253)
                self.fds += fds
                if not data:
                    return
                for frame in reader.feed(data):
                    self._on_frame(Kind(frame.kind), decode_items(self._table, frame.kind, frame.payload))
        except (ConnectionError, OSError):
            return
        except BaseException as error:
            self.problem = error

    def _on_frame(self, kind: Kind, items: list[Any]) -> None:
        with self._changed:
            self.heard += [(kind, item) for item in items]
            self._changed.notify_all()
        ends: list[End] = []
        for item in items:
            if isinstance(item, Function) and item.pickled is not None:
                self.functions[item.index] = loads_function(item.pickled)
            elif isinstance(item, Options):
                self.options[item.index] = item
            elif isinstance(item, Task):
                ends += self._on_task(self, item)
        if ends:
            self.say(Kind.END, *ends)
