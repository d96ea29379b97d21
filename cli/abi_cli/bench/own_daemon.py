"""A daemon for one measurement or one demo: in directories of its own, found only by who is told where."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping

START_S = 30.0
STOP_S = 20.0


class OwnDaemon:
    """`abid start -d` and `abid stop` inside `directory`. `pid` is 0 while it does not run."""

    def __init__(self, directory: str, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are further variables of its environment. Nobody else's configuration is read."""
        self.addresses = {
            "ABI_RUNTIME_DIR": os.path.join(directory, "run"),
            "ABI_STATE_DIR": os.path.join(directory, "state"),
        }
        self.pid = 0
        self.seconds_to_start = 0.0
        self._config = os.path.join(directory, "abid.toml")
        self._settings = dict(settings or {})

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return os.path.join(self.addresses["ABI_RUNTIME_DIR"], "abid.sock")

    def environment(self) -> dict[str, str]:
        """Ours, less every ABI_ variable but those that lead to this daemon: for programs that are to find it."""
        return {**without_abi(os.environ), **self.addresses}

    def start(self) -> None:
        """Return when it answers. Raises RuntimeError with what `abid` said if it does not start."""
        with open(self._config, "w", encoding="ascii"):
            pass
        begin = time.monotonic()
        # Its owner is this process: if we are killed, it ends as well.
        done = self._abid(["start", "-d", "-c", self._config, "--owner", str(os.getpid())], START_S)
        self.seconds_to_start = time.monotonic() - begin
        if done.returncode:
            raise RuntimeError(f"abid did not start (exit code {done.returncode}): {_said(done)}")
        self.pid = self._ask_pid()

    def stop(self, *, now: bool = False) -> None:
        """`abid stop`; a daemon that is still there afterwards is killed. Harmless when it does not run.

        `now` does not let running work finish.
        """
        if not self.pid:
            return
        pid, self.pid = self.pid, 0
        try:
            done = self._abid(["stop", "--now"] if now else ["stop"], STOP_S)
            if done.returncode:
                raise RuntimeError(f"abid did not stop (exit code {done.returncode}): {_said(done)}")
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise

    def _abid(self, words: list[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
        # Into a file and not a pipe: a daemon that goes on would hold the pipe open, and we would wait for its end.
        with open(self._config + ".said", "w+b") as said:
            environment = {**self.environment(), **self._settings}
            command = [program("abid"), *words]
            code = subprocess.call(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                   timeout=timeout)  # fmt: skip
            said.seek(0)
            return subprocess.CompletedProcess(command, code, said.read())

    def _ask_pid(self) -> int:
        """The kernel's answer, not the daemon's: who listens at the other end."""
        from abi import transport

        with transport.dial(self.socket, 5.0) as sock:
            return transport.peer_credentials(sock)[0]


def program(name: str) -> str:
    """The path of one of our commands, from the environment that runs us. Raises FileNotFoundError."""
    places = [os.path.dirname(sys.executable), sysconfig.get_path("scripts")]
    for place in places:
        path = os.path.join(place, name)
        if os.access(path, os.X_OK):
            return path
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no `{name}` in {' or '.join(places)}, nor on PATH")
    return found


def without_abi(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` less everything that points at a daemon or configures one."""
    return {name: value for name, value in environ.items() if not name.startswith("ABI_")}


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stdout.decode(errors="replace").strip() or "nothing"
