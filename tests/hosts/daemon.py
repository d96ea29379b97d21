"""A daemon on a host for tests: its own state and runtime directory, its network the host's."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.hosts.hosts import Host
from tests.system.harness import Daemon


class HostDaemon(Daemon):
    """As ``Daemon``. Commands reach it through its Unix socket, from wherever they run."""

    def __init__(self, host: Host, *flags: str, **options: Any) -> None:
        self.host = host
        super().__init__(*flags, **options)

    def _launch(self, ready: int, log: int, nothing: int) -> subprocess.Popen[bytes]:
        return self.host.open(
            self.command(ready), stdin=nothing, stdout=log, stderr=log, env=self.environment, pass_fds=[ready]
        )
