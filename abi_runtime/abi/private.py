"""A daemon for one program: started when none runs, found by nobody else, gone when the program is.

The process is started first and the program's own imports happen while it starts: a first result from nothing is to
take a fifth of a second. Hence also ``posix_spawn`` and no ``tempfile``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from abi.errors import DaemonUnreachable, error_from
from abi.paths import SOCKET_NAME

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 3.0
DEATH_SECONDS: Final = 0.5
"""From the end of its connection to the end of its process: the kernel closes files first, milliseconds before."""
_LOG_NAME: Final = "abid.log"


class PrivateDaemon:
    """A running daemon of ours. ``start`` returns before it is ready, ``wait_ready`` when it is."""

    def __init__(self, cpus: float | None, resources: dict[str, float] | None) -> None:
        self.owner = os.getpid()
        self._status: int | None = None
        """As ``waitpid`` tells it, once it has ended: from then on its pid may be somebody else's."""
        self._is_reaped_elsewhere = False
        self.directory = _fresh_directory()
        self.socket_path = os.path.join(self.directory, SOCKET_NAME)
        ready, say_ready = os.pipe()
        try:
            self.pid = self._spawn(say_ready, cpus, resources)
        except BaseException:
            os.close(ready)
            self._remove()
            raise
        finally:
            os.close(say_ready)
        self._ready = ready

    def _spawn(self, say_ready: int, cpus: float | None, resources: dict[str, float] | None) -> int:
        target = 3 if say_ready != 3 else 4
        command = [sys.executable, "-P", "-m", "abid", "start", "--private"]
        command += ["--owner", str(self.owner), "--ready-fd", str(target)]
        if cpus is not None:
            command += ["--cpus", str(cpus)]
        log = os.open(
            os.path.join(self.directory, _LOG_NAME), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return os.posix_spawn(
                sys.executable,
                command,
                _environment(self.directory, resources),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, say_ready, target),
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,  # Ctrl-C at the terminal is for the program, which then decides
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        finally:
            os.close(log)
            os.close(null)

    def wait_ready(self) -> None:
        """Raises the daemon's own error, or DaemonUnreachable with the end of its log."""
        deadline = time.monotonic() + START_SECONDS
        said = b""
        try:
            while not said.endswith(b"\n"):
                poll = select.poll()
                poll.register(self._ready, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    break
                more = os.read(self._ready, 4096)
                if not more:
                    break
                said += more
        finally:
            os.close(self._ready)
        if said.strip() != b"ready":
            problem = self._problem(said.decode("utf-8", "replace").strip())
            self.stop()
            raise problem

    def _problem(self, said: str) -> Exception:
        if said:
            message, hint, code = [*said.split("\t"), "", "internal"][:3]
            return error_from({"message": f"the private daemon did not start: {message}", "hint": hint, "code": code})
        return DaemonUnreachable(f"the private daemon did not start{self.last_words()}")

    def how_it_ended(self) -> str:
        """In words, with the end of its log where that tells of trouble. For the process that started it, after the
        connection was lost."""
        deadline = time.monotonic() + DEATH_SECONDS
        while not (gone := self._is_gone()) and time.monotonic() < deadline:
            time.sleep(0.002)
        name = f"the private daemon (pid {self.pid})"
        if not gone:
            return f"{name} closed the connection, and runs on{self.last_words()}"
        if self._status is None:
            return f"{name} ended{self.last_words()}"
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            return f"{name} was killed by {_signal_name(-code)}{self.last_words()}"
        return f"{name} ended with exit code {code}{self.last_words()}"

    def last_words(self) -> str:
        """The end of its log but for what tells of no trouble, indented, or nothing."""
        try:
            with open(os.path.join(self.directory, _LOG_NAME), "rb") as file:
                lines = file.read()[-4096:].decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        lines = [line for line in lines if not _is_calm(line)][-12:]
        return ":\n" + "\n".join("    " + line for line in lines) if lines else ""

    def stop(self) -> None:
        """End it and wait for that; kill it if it does not, or at a Ctrl-C. Only in the process that started it."""
        if os.getpid() != self.owner:
            return
        deadline = time.monotonic() + STOP_SECONDS
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGTERM)  # the second says: at once
        try:
            while not self._is_gone():
                if time.monotonic() > deadline:
                    self._signal(signal.SIGKILL)
                    deadline = float("inf")
                time.sleep(0.002)
        except KeyboardInterrupt:
            self._signal(signal.SIGKILL)
            raise
        finally:
            self._remove()

    def _signal(self, number: signal.Signals) -> None:
        if not self._is_gone():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _is_gone(self) -> bool:
        if self._status is None and not self._is_reaped_elsewhere:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # the program reaps all its children itself
                self._is_reaped_elsewhere = True
            else:
                self._status = status if pid == self.pid else None
        return self._status is not None or self._is_reaped_elsewhere

    def _remove(self) -> None:
        """Not by shutil: to import that evaluates text, and then Python forgets, at its very end, that it ends because
        of a Ctrl-C, and exits with 1 instead of dying of the signal."""
        for folder, below, files in os.walk(self.directory, topdown=False):
            for name in files:
                _try(os.unlink, os.path.join(folder, name))
            for name in below:
                path = os.path.join(folder, name)
                _try(os.unlink if os.path.islink(path) else os.rmdir, path)
        _try(os.rmdir, self.directory)


def _is_calm(line: str) -> bool:
    """Whether a line of its log is below a warning, in whichever of the forms of ``abid.logs``."""
    if line.startswith("{"):
        return '"level": "info"' in line or '"level": "debug"' in line
    return line.startswith(("<6>", "<7>")) or line.split(" ", 2)[1:2] in (["info"], ["debug"])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _try(action: Callable[[str], None], path: str) -> None:
    with contextlib.suppress(OSError):
        action(path)


def _fresh_directory() -> str:
    """0700, under a path short enough for a socket's address."""
    base = os.environ.get("TMPDIR", "/tmp")
    if len(base) > 60 or not os.path.isdir(base):
        base = "/tmp"
    while True:
        path = os.path.join(base, f"abi-private-{os.urandom(5).hex()}")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        return path


def _environment(directory: str, resources: dict[str, float] | None) -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("ABI_SOCKET", None)
    environment["ABI_RUNTIME_DIR"] = directory
    environment["ABI_STATE_DIR"] = os.path.join(directory, "state")
    if resources:
        environment["ABI_WORKERS_RESOURCES"] = ",".join(f"{name}={amount}" for name, amount in resources.items())
    folders = []
    for package in ("abi", "abid", "abi_worker"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            folders.append(os.path.dirname(os.path.dirname(spec.origin)))
    known = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*folders, *known]))
    return environment
