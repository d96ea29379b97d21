"""Programs of the library's user as files, and what /proc says of a process's memory and descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.system.harness import WAIT_S, Place, Program


def write_script(folder: Path, text: str, name: str = "program.py") -> Path:
    """A program as a file: what `__main__` is, and what lies beside it, matters to how it is pickled."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def run_script(place: Place, script: str | Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a file, or a text as a file, to its end; it finds the daemon of ``place``, if that has one."""
    return subprocess.run(
        [sys.executable, str(_path(place, script)), *arguments],
        capture_output=True,
        text=True,
        env=place.environment | options.pop("env", {}),
        stdin=subprocess.DEVNULL,
        timeout=options.pop("timeout", WAIT_S),
        **options,
    )


def output_of(place: Place, script: str | Path, *arguments: str, **options: Any) -> str:
    """What it printed; it must have succeeded and said nothing else."""
    done = run_script(place, script, *arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def start_script(place: Place, script: str | Path, *arguments: str, **options: Any) -> Program:
    """Start one and go on."""
    return Program([sys.executable, "-u", str(_path(place, script)), *arguments], place.environment, **options)


def _path(place: Place, script: str | Path) -> Path:
    return script if isinstance(script, Path) else write_script(place.folder, script)


def status(place: Place) -> Any:
    """What `abi status --json` says, without the cost of a process: tests ask often."""
    return place.ask("status")


def memory_bytes(pid: int, field: str = "RssAnon") -> int:
    """A line of /proc/PID/status: `RssAnon` (its own), `VmRSS` (with what it maps), `VmHWM` (the peak of that)."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
