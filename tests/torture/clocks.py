"""The wall clock of one daemon, set wrong without touching the machine's.

Where there is a C compiler, `wall_clock.c` is loaded before the C library: so Python, OpenSSL (which judges
certificates by it) and SQLite see the same wrong time. Where there is none, only ``time.time`` and ``time.time_ns`` of
the daemon are shifted, and OpenSSL goes on with the right time. Neither shifts what the kernel itself stamps, nor
processes in other languages that ask it directly.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

VARIABLE: Final = "WALL_CLOCK"
_SOURCE: Final = Path(__file__).with_name("wall_clock.c")
_NS: Final = struct.Struct("=q")

BEFORE: Final = f"""
def _shift():
    import mmap, os, struct, time
    if not os.environ.get({VARIABLE!r}) or os.environ.get("LD_PRELOAD"):
        return
    with open(os.environ[{VARIABLE!r}], "rb") as file:
        offset = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    right_ns = time.time_ns
    time.time_ns = lambda: right_ns() + struct.unpack("=q", offset[:])[0]
    time.time = lambda: time.time_ns() / 1e9
_shift()
"""
"""Python that runs in a daemon before its main: shifts its clock where nothing was loaded before the C library."""


class WallClock:
    """Of one process, right until it is set. ``environment`` is what the process is to be started with."""

    def __init__(self, folder: Path, name: str = "clock") -> None:
        path = folder / name
        path.write_bytes(_NS.pack(0))
        with open(path, "r+b") as file:
            self._offset = mmap.mmap(file.fileno(), _NS.size)
        library = built(folder)
        self.reaches_openssl = library is not None
        self.environment = {VARIABLE: str(path)} | ({"LD_PRELOAD": str(library)} if library else {})

    def set(self, ahead_s: float) -> None:
        """So many seconds ahead of the machine's from now on; behind it, if negative."""
        self._offset[:] = _NS.pack(round(ahead_s * 1e9))

    def close(self) -> None:
        self._offset.close()


def built(folder: Path, source: Path = _SOURCE) -> Path | None:
    """The library; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / f"{source.stem}.so"
    if not library.exists():
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return library
