"""Throws inputs at a ``World`` and watches: no exception, no growth, the rules' own check, and nothing unpickled."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from abi.wire.frames import FrameReader
from abi.wire.schema import Kind
from abid.clients import Greeting
from abid.core.retry import Death
from abid.workers import WorkerProcess
from tests.fuzz.frames import HEADER, JSON, MSGPACK, Frame, Speaker, damaged, encode, of_worker, request
from tests.fuzz.shell import MS, ClientSocket, World

GROWTH_MAX_BYTES = 4 << 20
"""Between the first quarter and the last: room for the allocator's mood, none for a leak of even ten bytes an input."""
QUARTERS = 4
UNPICKLED: list[str] = []
"""What the audit hook saw since it was last cleared."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        UNPICKLED.append(f"{arguments[0]}.{arguments[1]}")


@dataclass
class Figures:
    """What a run found."""

    inputs: int = 0
    refused: int = 0
    """Connections that were closed for what they said."""
    connections: int = 0
    checks: int = 0
    seconds: float = 0.0
    rss: list[int] = field(default_factory=list)
    """After each quarter, with every client gone."""

    @property
    def growth_bytes(self) -> int:
        return self.rss[-1] - self.rss[0]


class Failures(logging.Handler):
    """A fault that the shell survives by closing a connection is a fault all the same."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.seen = record.exc_info[1]


class Client:
    """One connection, from its greeting to its end."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.sock = ClientSocket(rng)
        self.speaker = Speaker(rng)
        self.damage = rng.choice((0.0, 0.02, 0.02, 0.3))
        """How often it says what makes no sense."""
        self.control = rng.random() < 0.15
        sock: Any = self.sock
        self.greeting = Greeting(world.listener, sock)

    def greet(self) -> Frame:
        words: dict[str, Any] = {
            "protocol": [1, 0], "role": "control" if self.control else "session", "version": "1", "python": "3.12",
            "uid": os.getuid(), "pid": os.getpid(),
        }  # fmt: skip
        if not self.control:
            interpreter = {"executable": "/python", "flags": [], "variables": {}, "package_path": []}
            program = {"interpreter": interpreter, "sys_path": [], "directory": "/", "environment": {}}
            words["program"] = program | {"main_path": "", "name": "x"}
        sessions = list(self.world.node.sessions.values())
        if sessions and not self.control and self.rng.random() < 0.2:  # it comes back, or wants somebody else's
            known = self.rng.choice(sessions)
            words |= {"resume": known.prefix.hex(), "token": self.rng.choice((known.token, known.token, "guess"))}
        return Frame(Kind.HELLO, JSON, words)

    def speak(self) -> bool:
        """One frame; False when it is no longer listened to."""
        rng = self.rng
        if self.greeting.channel.closed:
            return False
        if self.greeting.session is None and self.greeting.control is None:
            frame = self.greet()
        elif self.control:
            frame = request(rng)
        else:
            frame = self.speaker.frame()
        data = damaged(rng, frame) if rng.random() < self.damage else encode(frame)
        fds = [self.world.descriptor() for _ in range(frame.descriptors)]
        if rng.random() < 0.02:
            fds.append(self.world.descriptor())
        if rng.random() < 0.9:
            self.sock.incoming.append((data, fds))
        else:
            cut = rng.randrange(1, len(data))
            self.sock.incoming.append((data[:cut], fds))
            self.sock.incoming.append((data[cut:], []))
        channel = self.greeting.channel
        while self.sock.incoming and channel._reading:
            channel.read_once()
        if rng.random() < 0.05:
            self.sock.reads = not self.sock.reads
            if self.sock.reads and channel._unsent and not channel.closed:
                channel._on_writable()
        return not channel.closed and not channel._closing

    def leave(self) -> None:
        """Goodbye, or not even that."""
        channel = self.greeting.channel
        if not channel.closed and self.greeting.session is not None and self.rng.random() < 0.3:
            self.sock.incoming.append((HEADER.pack(1, Kind.BYE, MSGPACK, 0) + b"\x90", []))
            self.sock.incoming and channel._reading and channel.read_once()
        if not channel.closed:
            channel.close("")
        session = self.greeting.session
        if session is not None and self.rng.random() < 0.7:
            session.end("its process is gone")


class Run:
    def __init__(self, seed: int, folder: Path, check_every: int) -> None:
        self.rng = Random(seed)
        (folder / "abid.toml").write_text("")
        self.world = World(self.rng, folder)
        self.figures = Figures()
        self.clients: list[Client] = []
        self.check_every = check_every
        self.failures = Failures()
        self.readers = [FrameReader(1 << 16) for _ in range(4)]

    def step(self) -> None:
        """One input."""
        rng = self.rng
        self.figures.inputs += 1
        dice = rng.random()
        if dice < 0.03:
            self._raw_bytes()
        elif dice < 0.3 and self.world.pool.processes:
            self._worker_speaks()
        else:
            self._client_speaks()
        self.world.turn(rng.choice((0, 0, MS // 10, MS, 20 * MS)))
        if self.failures.seen is not None:
            raise AssertionError("the shell met a fault of ours") from self.failures.seen
        if self.figures.inputs % self.check_every == 0:
            self.world.node.core.check()
            self.figures.checks += 1

    def _client_speaks(self) -> None:
        rng = self.rng
        if len(self.clients) < 3 or (len(self.clients) < 8 and rng.random() < 0.02):
            self.clients.append(Client(self.world, rng))
            self.figures.connections += 1
        at = rng.randrange(len(self.clients))
        client = self.clients[at]
        if not client.speak():
            self.figures.refused += 1
        elif rng.random() > 0.02:
            return
        self.clients.pop(at).leave()

    def _worker_speaks(self) -> None:
        rng = self.rng
        process = rng.choice(list(self.world.pool.processes.values()))
        outstanding = [(record.number, record.seq) for record in process.core.outstanding]
        process.page.running = outstanding[0][0] if outstanding and rng.random() < 0.7 else 0
        if rng.random() < 0.02:
            self.world.pool.die(process, Death(text="it died", signal=rng.choice((9, 11)), exit_code=0))
            return
        if isinstance(process, WorkerProcess):
            if outstanding and rng.random() < 0.7:
                outstanding = outstanding[:1]
            speaker = Speaker(rng, process.port.number)
            speaker.functions = speaker.options = rng.randrange(2)
            frame = of_worker(rng, outstanding) if rng.random() < 0.85 else speaker.frame()
        else:
            words: list[Any] = [[rng.choice((0, 9, 256, 127 << 8)), 10, rng.choice(("", "", "not found"))]]
            kind = rng.choice((Kind.COMMAND_ENDED, Kind.COMMAND_STARTED, Kind.COMMAND_GREW))
            frame = Frame(kind, MSGPACK, words if kind == Kind.COMMAND_ENDED else [[5]])
        data = damaged(rng, frame) if rng.random() < 0.1 else encode(frame)
        if not process.channel.closed:
            process.channel._fds.extend(self.world.descriptor() for _ in range(frame.descriptors))
            process.channel._handle(data)
        if process.number in self.world.pool.zygote.ends and rng.random() < 0.3:
            self.world.pool.zygote.drain(process.number)

    def _raw_bytes(self) -> None:
        """A reader alone, with bytes of no origin, in pieces."""
        from abi.errors import ProtocolError

        rng = self.rng
        at = rng.randrange(len(self.readers))
        data = rng.randbytes(rng.randrange(1, 300)) if rng.random() < 0.5 else encode(Frame(18, 1, [[1, 0, 0]])) * 5
        try:
            while data:
                cut = rng.randrange(1, len(data) + 1)
                for frame in self.readers[at].feed(data[:cut]):
                    assert len(frame.payload) <= self.readers[at].limit
                data = data[cut:]
            assert self.readers[at].pending <= self.readers[at].limit + 8
        except ProtocolError:
            self.readers[at] = FrameReader(1 << 16)

    def empty(self) -> None:
        """Everybody leaves; nothing may stay."""
        while self.clients:
            self.clients.pop().leave()
        for _ in range(20):
            for process in list(self.world.pool.processes.values()):
                self.world.pool.die(process, Death(text="the end", exit_code=0))
            self.world.turn(100 * MS)
            for session in list(self.world.node.sessions.values()):
                session.end("the end")
        node = self.world.node
        for job in list(node.jobs.by_seq.values()):
            node.core.on_cancel(node.jobs_session, [job.seq], True, True, node.now())
        self.world.turn(10_000 * MS)
        node.core.check()
        assert not node.sessions, node.sessions
        assert len(node.core.board.sessions) == 1, node.core.board.sessions  # that of commands
        assert not node.core.board.workers, node.core.board.workers
        assert not self.world.listener.connections


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(inputs: int, seed: int, check_every: int = 1000) -> Figures:
    """Raises AssertionError, or whatever the daemon raised."""
    logger = logging.getLogger("abid")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    UNPICKLED.clear()
    with tempfile.TemporaryDirectory(prefix="abi-fuzz-") as folder:
        made = Run(seed, Path(folder), check_every)
        for name in ("abid.channel", "abid.node"):
            logging.getLogger(name).setLevel(logging.ERROR)
            logging.getLogger(name).addHandler(made.failures)
            logging.getLogger(name).propagate = False
        began = time.monotonic()
        open_before = 0
        try:
            for quarter in range(QUARTERS):
                for _ in range(inputs // QUARTERS):
                    made.step()
                made.empty()
                gc.collect()
                made.figures.rss.append(rss_bytes())
                if quarter == 0:
                    open_before = descriptors()
            assert descriptors() <= open_before + 2, f"{descriptors()} descriptors are open, {open_before} were"
            assert UNPICKLED == []
        finally:
            made.figures.seconds = time.monotonic() - began
            logger.setLevel(level)
            for name in ("abid.channel", "abid.node"):
                logging.getLogger(name).removeHandler(made.failures)
                logging.getLogger(name).propagate = True
    return made.figures


sys.addaudithook(_audit)
