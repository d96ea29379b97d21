"""Real daemons for tests: each in directories of its own, ended with everything below it, its log shown on failure.

Nothing here sleeps for luck: waits end with an event (a line, a pidfd), or with a condition that is looked at again,
and each is bounded by ``WAIT_S``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from abi import control
from tests.system.warm import COMMAND, DAEMON, MEMBER, Forked, warm

BIN = Path(sys.executable).parent
WAIT_S = 30
"""Bounds every wait of a test: what takes longer has failed. Nothing is timed by it."""
GONE_S = 20
"""The same for processes that are to go: less than what tasks of tests hold on for by themselves."""
ORPHAN_S = 2
"""What the project promises: nothing outlives its daemon, zygote, worker or client by more. See ``test_orphans``."""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what would lead to another daemon or change this one's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ABI_", "XDG_"))}
    return kept | more


def eventually(condition: Callable[[], Any], what: str, within_s: float = WAIT_S) -> Any:
    """The first true value of ``condition``; fails with ``what`` when there is none in time."""
    deadline = time.monotonic() + within_s
    pause_s = 0.005
    while True:
        is_late = time.monotonic() >= deadline  # before the look: who stood still himself looks once more
        if found := condition():
            return found
        assert not is_late, f"not within {within_s} s: {what}"
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.2, 0.025)  # who waits for long looks less often, and leaves the processor to others


class Place:
    """Fresh directories, and programs run in them. No daemon yet."""

    def __init__(self, *, config: str = "", runtime_dir: str = "run", **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="abi-test-")
        self.folder = Path(self._folder.name)
        self.runtime_dir = self.folder / runtime_dir
        self.state_dir = self.folder / "state"
        self.home = self.folder / "home"
        for folder in (self.runtime_dir, self.state_dir, self.home):
            folder.mkdir(mode=0o700, parents=True)
        self.environment = clean_environment(
            ABI_RUNTIME_DIR=str(self.runtime_dir),
            ABI_STATE_DIR=str(self.state_dir),
            HOME=str(self.home),
            **environment,
        )
        self.config_file = self.folder / "abid.toml"
        self.config_file.write_text(config)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `abi` or `abid` against this daemon."""
        if command[0] == "abi" and not options.keys() - {"env"}:
            return self._run_warm(list(command), self.environment | options.get("env", {}))
        executable = str(BIN / command[0])
        return subprocess.run(
            [executable, *command[1:]],
            capture_output=True,
            text=True,
            env=self.environment | options.pop("env", {}),
            timeout=WAIT_S,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            **options,
        )

    def _run_warm(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as nothing:
            process = warm(COMMAND).start(
                "import sys\nfrom abi_cli.main import main\nsys.exit(main())",
                command,
                environment,
                {0: nothing.fileno(), 1: out.fileno(), 2: err.fileno()},
            )
            try:
                code = process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(WAIT_S)
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())

    def json(self, *command: str) -> Any:
        """What a command prints with --json; it must succeed."""
        done = self.run(*command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ask(self, op: str, **words: Any) -> control.Object:
        """What the daemon answers to a control request, as a command would hear it but without the cost of one."""
        with control.connect(WAIT_S, [str(self.runtime_dir / "abid.sock")]) as connection:
            return connection.request(op, **words)

    def open(self, *command: str | bytes, **options: Any) -> Program:
        """Start `abi` or `abid` and go on."""
        return Program([str(BIN / os.fsdecode(command[0])), *command[1:]], self.environment, **options)

    def python(self, program: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program of the library's user; it finds this daemon by its environment."""
        return subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=self.environment | options.pop("env", {}),
            timeout=options.pop("timeout", WAIT_S),
            stdin=subprocess.DEVNULL,
            **options,
        )

    def processes(self) -> list[int]:
        """Every living process that names this runtime directory on its command line."""
        needle = os.fsencode(self.runtime_dir)
        return [pid for pid in all_pids() if needle in command_line(pid) and state_of(pid) != "Z"]

    def fifo(self, name: str) -> str:
        """A named pipe: opening it for reading waits until somebody opens it for writing."""
        path = self.folder / name
        os.mkfifo(path)
        return str(path)

    def close(self) -> None:
        self._folder.cleanup()


class Daemon(Place):
    """One `abid start` in a fresh runtime and state directory.

    ``before`` is Python that runs in the daemon's process before anything of abi is imported.
    """

    is_member = False
    """Whether it is to be a member of a cluster, and may have loaded already what those need."""

    def __init__(
        self, *flags: str, cpus: float | None = 2, config: str = "", before: str = "", runtime_dir: str = "run",
        **environment: str,
    ) -> None:  # fmt: skip
        super().__init__(config=config, runtime_dir=runtime_dir, **environment)
        self.flags = [*flags, "-c", str(self.config_file)]
        if cpus is not None:
            self.flags += ["--cpus", str(cpus)]
        self._before = before
        self.process: subprocess.Popen[bytes] | Forked
        self.log_path = self.folder / "log"
        self.start()

    def code(self) -> str:
        """What the interpreter is to run."""
        return f"{self._before}\nimport sys\nfrom abid.main import main\nsys.exit(main())"

    def start(self) -> None:
        """Start it (again), in the foreground, and return when it says that it is ready."""
        read_fd, write_fd = os.pipe()
        with open(self.log_path, "ab") as log, open(os.devnull) as nothing:
            self.process = self._launch(write_fd, log.fileno(), nothing.fileno())
        os.close(write_fd)
        with open(read_fd) as pipe:
            assert select.select([pipe], [], [], WAIT_S)[0], "the daemon said nothing"
            words = pipe.readline().strip()
        assert words == "ready", f"the daemon did not start: {words}\n{self.log()}"

    def _launch(self, ready: int, log: int, nothing: int) -> subprocess.Popen[bytes] | Forked:
        """A process with these descriptors. What is to run before anything is imported starts from nothing."""
        if self._before:
            return subprocess.Popen(self.command(ready), stdin=nothing, stdout=log, stderr=log, env=self.environment,
                                    pass_fds=[ready])  # fmt: skip
        return warm(MEMBER if self.is_member else DAEMON).start(
            self.code(),
            ["abid", "start", *self.flags, "--ready-fd", "3"],
            self.environment,
            {0: nothing, 1: log, 2: log, 3: ready},
        )

    def command(self, ready: int) -> list[str]:
        return [sys.executable, "-c", self.code(), "start", *self.flags, "--ready-fd", str(ready)]

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def await_log(self, words: str) -> None:
        eventually(lambda: words in self.log(), f"{words!r} in the daemon's log:\n{self.log()}")

    def processes(self) -> list[int]:
        """Those that name the runtime directory, and the daemon itself."""
        found = super().processes()
        return found if self.process.poll() is not None or self.pid in found else [*found, self.pid]

    def _told_to_end(self) -> bool:
        """Two signals at once may arrive as one, which would let it drain; so it is told until it ends."""
        self.kill(signal.SIGTERM)
        try:
            self.process.wait(0.05)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End it, and see that nothing of it is left."""
        if self.process.poll() is None:
            try:
                eventually(self._told_to_end, "the daemon ends")
            except AssertionError:
                self.kill()
                self.process.wait(WAIT_S)
                raise
        try:
            eventually(lambda: not self.processes(), "everything of the daemon is gone", GONE_S)
        finally:
            super().close()


class Program:
    """A program under way, with what it printed so far."""

    def __init__(self, command: list[str | bytes], environment: dict[str, str], **options: Any) -> None:
        chosen: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": environment,
        }
        self.process = subprocess.Popen(command, **(chosen | options))
        self._out = bytearray()
        self._err = bytearray()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> bytes:
        return bytes(self._out)

    @property
    def err(self) -> bytes:
        return bytes(self._err)

    def await_out(self, words: bytes) -> bytes:
        """Read its output until ``words`` are in it."""
        while words not in self._out:
            assert self._read_one(), f"it ended without {words!r}: {self.out!r} {self.err!r}"
        return self.out

    def await_err(self, words: bytes) -> bytes:
        while words not in self._err:
            assert self._read_one(), f"it ended without {words!r}: {self.out!r} {self.err!r}"
        return self.err

    def _read_one(self) -> bool:
        """Read what comes next on either stream; False when both have ended."""
        streams = [stream for stream in (self.process.stdout, self.process.stderr) if stream and not stream.closed]
        if not streams:
            return False
        ready = select.select(streams, [], [], WAIT_S)[0]
        assert ready, f"nothing more came: {self.out!r} {self.err!r}"
        for stream in ready:
            data = os.read(stream.fileno(), 1 << 20)
            if stream is self.process.stdout:
                self._out += data
            else:
                self._err += data
            if not data:
                stream.close()
        return True

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Read all that comes, then its exit code."""
        while self._read_one():
            pass
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


# Processes.


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def command_line(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[str]:
    try:
        return Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    """One letter as in ps(1), "" when there is no such process."""
    return (_stat(pid) or [""])[0]


def parent_of(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def below(pid: int) -> list[int]:
    """All descendants of a process that are there now, zombies too."""
    parents = {child: parent_of(child) for child in all_pids()}
    found, work = [], [pid]
    for above in work:
        children = [child for child, parent in parents.items() if parent == above]
        found += children
        work += children
    return found


def alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z")


def await_gone(pids: Iterable[int], within_s: float = GONE_S) -> None:
    """Fails if one of these goes on running."""
    pids = list(pids)
    eventually(
        lambda: not any(alive(pid) for pid in pids),
        f"gone: {[(pid, state_of(pid), command_line(pid)) for pid in pids if alive(pid)]}",
        within_s,
    )


def rss_bytes(pid: int) -> int:
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")
