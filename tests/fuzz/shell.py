"""A whole node without a kernel below it: real connections, sessions, workers and rules, on a loop that does not wait.

Sockets to clients are pretended, so that a million inputs take a minute; those to workers are real, with nobody behind.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import abid.node
import abid.programs
from abi.config import Config, load
from abi.objects import memfd
from abi.transport import recv_with_fds
from abi.wire.schema import Setup
from abid.clients import Listener
from abid.commands import CommandProcess
from abid.core.retry import Death
from abid.core.workers import Phase, Worker
from abid.node import Node
from abid.state import Identity
from abid.workers import WorkerProcess

MS = 1_000_000
LIMITS = {
    "workers.cpus": 4.0,
    "workers.memory_bytes": 1 << 30,
    "workers.resources": {"slot": 2.0},
    "workers.processes_max": 6,
    "workers.idle_timeout_ms": 100,
    "queue.tasks_max": 60,
    "queue.bytes_max": 1 << 20,
    "queue.nested_reserve": 10,
    "queue.unread_results_bytes_max": 1 << 20,
    "tasks.session_grace_ms": 5,
    "jobs.keep_max": 5,
    "daemon.log_level": "error",
}


class Timer:
    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        self.callback, self.arguments = None, ()


class Loop:
    """A loop that runs what is due when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 1000 * MS
        self.soon: deque[Timer] = deque()
        self.later: list[tuple[int, int, Timer]] = []
        self._count = 0

    def time(self) -> float:
        return self.now_ns / 1e9

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Timer:
        timer = Timer(callback, arguments)
        self.soon.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        timer = Timer(callback, arguments)
        self._count += 1
        heapq.heappush(self.later, (self.now_ns + int(delay * 1e9), self._count, timer))
        return timer

    def add_reader(self, *_: Any) -> None:
        """Nobody is waited for."""

    add_writer = remove_reader = remove_writer = add_reader

    def turn(self, passed_ns: int = 0) -> None:
        """Let time pass, and run what is due."""
        self.now_ns += passed_ns
        while self.later and (self.later[0][0] <= self.now_ns or self.later[0][2].callback is None):
            self.soon.append(heapq.heappop(self.later)[2])
        while self.soon:
            timer = self.soon.popleft()
            if timer.callback is not None:
                timer.callback(*timer.arguments)


class ClientSocket:
    """The daemon's end of a client's connection: gives what the fuzzer put in, forgets what is sent."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.incoming: deque[tuple[bytes, list[int]]] = deque()
        self.reads = True
        """Whether the client takes what it is sent."""

    def setblocking(self, _: bool) -> None: ...

    def fileno(self) -> int:
        return 1 << 20

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("3i", os.getpid(), os.getuid(), os.getgid())

    def recvmsg_into(self, buffers: list[bytearray], *_: int) -> tuple[int, list[tuple[int, int, bytes]], int, None]:
        if not self.incoming:
            raise BlockingIOError
        data, fds = self.incoming.popleft()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        buffers[0][: len(data)] = data
        return len(data), ancillary, 0, None

    def send(self, data: bytes | memoryview) -> int:
        if not self.reads:
            raise BlockingIOError
        return len(data) if self.rng.random() < 0.95 else max(1, len(data) // 2)

    def sendmsg(self, buffers: Sequence[memoryview], _: Any) -> int:
        return self.send(buffers[0])

    def close(self) -> None:
        for _, fds in self.incoming:
            for fd in fds:
                os.close(fd)
        self.incoming.clear()


class Zygote:
    """Makes no process, and keeps the other end of each worker's socket open as one would."""

    pid = 1

    def __init__(self) -> None:
        self.ends: dict[int, socket.socket] = {}
        self._buffer = bytearray(1 << 16)

    def fork(self, number: int, command: bool, fds: Sequence[int]) -> None:
        end = socket.socket(fileno=os.dup(fds[0]))
        end.setblocking(False)
        self.ends[number] = end

    def drain(self, number: int) -> None:
        """Take what was sent to a worker, descriptors too."""
        fds: list[int] = []
        with contextlib.suppress(BlockingIOError):
            while recv_with_fds(self.ends[number], self._buffer, fds):
                pass
        for fd in fds:
            os.close(fd)


class Pool:
    """The place of ``abid.pool.Pool``: workers of which the fuzzer says what they do."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.processes: dict[int, WorkerProcess | CommandProcess] = {}
        self.zygote = Zygote()

    def spawn(self, worker: Worker) -> None:
        zygote: Any = self.zygote
        if worker.command:
            self.processes[worker.number] = CommandProcess(self.node, worker, zygote)
            return
        setup = Setup(b"", worker.submitter, "", [], b"/", {}, b"", worker.gpu_ids, "", b"")
        self.processes[worker.number] = WorkerProcess(self.node, worker, zygote, setup)

    def never_was(self, process: CommandProcess) -> None:
        self.die(process, Death(text="it was not started", started=False))

    def die(self, process: WorkerProcess | CommandProcess, death: Death) -> None:
        """As ``_on_exited`` of the real one."""
        del self.processes[process.number]
        end = self.zygote.ends.get(process.number)
        if end is not None:
            self.zygote.drain(process.number)
            end.close()
            del self.zygote.ends[process.number]
        running = process.collect()
        self.node.core.on_exit(process.core, running, death, self.node.now())
        self.node.touch()

    def bury(self) -> None:
        """Those that were told to go, are gone."""
        for process in list(self.processes.values()):
            if process.killed_because or process.core.phase == Phase.LEAVING:
                self.die(process, Death(text="killed", signal=9))

    def prune(self) -> None: ...

    def close(self) -> None: ...


class Cards:
    """Two."""

    def uuids(self) -> list[str]:
        return ["card-0", "card-1"]


class World:
    """A node, its listener and its clock."""

    def __init__(self, rng: Random, folder: Path) -> None:
        # Ids are drawn by the seed too, so that it replays all.
        seeded: Any = SimpleNamespace(
            token_bytes=rng.randbytes, token_hex=lambda n: rng.randbytes(n).hex(), compare_digest=lambda a, b: a == b
        )
        for module in (abid.node, abid.programs):
            setattr(module, "secrets", seeded)  # noqa: B010 - it exports no such name
        self.rng = rng
        self.loop = Loop()
        config: Config = load(str(folder / "abid.toml"), flags=LIMITS, environ={})
        (folder / "state").mkdir(exist_ok=True)
        loop: Any = self.loop
        self.node = Node(
            loop, config, folder, folder / "state", str(folder / "abid.sock"), Identity(b"node", 1), Cards()
        )
        self.node.now = lambda: self.loop.now_ns
        self.node.pulse = SimpleNamespace(p99_s=lambda: 0.0)  # type: ignore[assignment]
        self.pool = Pool(self.node)
        self.node.pool = self.pool  # type: ignore[assignment]
        listening: Any = SimpleNamespace(setblocking=lambda _: None, fileno=lambda: 1 << 20)
        self.listener = Listener(self.node, listening)
        self.payload = memfd.create([bytes(200_000)])

    def descriptor(self) -> int:
        return os.dup(self.payload.fd)

    def turn(self, passed_ns: int = 0) -> None:
        self.loop.turn(passed_ns)
        self.pool.bury()
        self.loop.turn()
