"""A daemon on a host for tests: its own state and runtime directory, its network the host's."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import Any

from tests.hosts.hosts import Host
from tests.system.harness import WAIT_S, Daemon


class HostDaemon(Daemon):
    """As ``Daemon``. Commands reach it through its Unix socket, from wherever they run."""

    def __init__(self, host: Host, *flags: str, **options: Any) -> None:
        self.host = host
        super().__init__(*flags, **options)

    def start(self) -> None:
        """Start it (again), and return when it says that it is ready."""
        read_fd, write_fd = os.pipe()
        command = [sys.executable, "-c", self.code(), "start", *self.flags, "--ready-fd", str(write_fd)]
        with open(self.log_path, "ab") as log:
            self.process = self.host.open(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, pass_fds=[write_fd]
            )
        os.close(write_fd)
        with open(read_fd) as pipe:
            assert select.select([pipe], [], [], WAIT_S)[0], "the daemon said nothing"
            words = pipe.readline().strip()
        assert words == "ready", f"the daemon did not start: {words}\n{self.log()}"
