"""Real daemons for tests: each in directories of its own, ended with everything below it, its log shown on failure."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
WAIT_S = 30
"""Bounds every wait of a test: what takes longer has failed. Nothing is timed by it."""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what would lead to another daemon or change this one's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ABI_", "XDG_"))}
    return kept | more


class Daemon:
    """One `abid start` in a fresh runtime and state directory."""

    def __init__(self, *flags: str, cpus: float | None = 2, config: str = "", **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="abi-test-")
        self.folder = Path(self._folder.name)
        self.runtime_dir = self.folder / "run"
        self.state_dir = self.folder / "state"
        for folder in (self.runtime_dir, self.state_dir, self.folder / "home"):
            folder.mkdir(mode=0o700)
        self.environment = clean_environment(
            ABI_RUNTIME_DIR=str(self.runtime_dir),
            ABI_STATE_DIR=str(self.state_dir),
            HOME=str(self.folder / "home"),
            **environment,
        )
        self.config_file = self.folder / "abid.toml"
        self.config_file.write_text(config)
        self.flags = [*flags, "-c", str(self.config_file)]
        if cpus is not None:
            self.flags += ["--cpus", str(cpus)]
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it (again), in the foreground, and return when it says that it is ready."""
        read_fd, write_fd = os.pipe()
        self.log_path = self.folder / "log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "abid", "start", *self.flags, "--ready-fd", str(write_fd)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                pass_fds=[write_fd],
            )
        os.close(write_fd)
        with open(read_fd) as pipe:
            assert select.select([pipe], [], [], WAIT_S)[0], "the daemon said nothing"
            words = pipe.readline().strip()
        assert words == "ready", f"the daemon did not start: {words}\n{self.log()}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `abi` or `abid` against this daemon."""
        executable = str(BIN / command[0])
        return subprocess.run(
            [executable, *command[1:]],
            capture_output=True,
            text=True,
            env=self.environment | options.pop("env", {}),
            timeout=WAIT_S,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def json(self, *command: str) -> Any:
        done = self.run(*command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

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
        """Every living process that names this runtime directory on its command line, and the daemon itself."""
        needle = os.fsencode(self.runtime_dir)
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    command_line = Path("/proc", name, "cmdline").read_bytes()
                except OSError:
                    continue
                if needle in command_line or int(name) == self.pid:
                    found.append(int(name))
        return found

    def close(self) -> None:
        """End it, and see that nothing of it is left."""
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)
            self.kill(signal.SIGTERM)
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.kill()
                self.process.wait(WAIT_S)
        self._folder.cleanup()
