"""What the results of a program took is the kernel's again when the program has ended."""

from __future__ import annotations

from tests.system.harness import Daemon, eventually
from tests.system.scripts import memory_bytes, output_of

MIB = 1 << 20
SCRIPT = """
import abi
from pathlib import Path

@abi.remote
def make(n):
    return b"w" * n

refs = [make.remote(100_000) for _ in range(1_000)]
abi.get(refs)
print(next(line for line in Path("/proc/PID/status").read_text().splitlines() if line.startswith("RssAnon")))
"""


def test_a_daemon_is_as_small_as_before_when_the_last_program_has_ended() -> None:
    daemon = Daemon()
    try:
        before = memory_bytes(daemon.pid)
        said = output_of(daemon, SCRIPT.replace("PID", str(daemon.pid)))
        assert int(said.split()[1]) * 1024 > before + 80 * MIB, "inline results are the daemon's to keep"
        eventually(lambda: memory_bytes(daemon.pid) < before + 16 * MIB, "its memory is given back")
    finally:
        daemon.close()
