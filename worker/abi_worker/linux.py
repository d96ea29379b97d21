"""What a worker's process does for its place among others: who ends it, what it ends, how it is named."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Container
from typing import Final

from abi.processes import children, libc, prctl

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_IOLBF: Final = 1
OOM_SCORE_MORE: Final = 500
"""A worker is to be killed for want of memory long before its daemon, and before most of what else runs."""


def die_with(parent: int) -> None:
    """SIGKILL to us when ``parent`` dies. Leaves at once when it already has: the kernel tells only of later deaths."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def name_process(name: str) -> None:
    """What ``top`` and ``ps -o comm`` show: 15 bytes at most."""
    with contextlib.suppress(OSError):
        buffer = ctypes.create_string_buffer(name.encode()[:15])
        prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def be_first_to_die() -> None:
    """Raises our score for the kernel's out-of-memory killer; where that is not allowed, things stay as they are."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
        score = int(file.read())
        file.write(str(min(score + OOM_SCORE_MORE, 1000)).encode())


def line_buffer_c_output() -> None:
    """C code's ``printf`` goes out at each newline: on a pipe it would wait for 4 KiB, and be lost with a crash."""
    with contextlib.suppress(ValueError, AttributeError):
        libc().setvbuf(ctypes.c_void_p.in_dll(libc(), "stdout"), None, _IOLBF, ctypes.c_size_t(0))


def flush_c_output() -> None:
    libc().fflush(None)


def kill_children(known: Container[int] = ()) -> int:
    """SIGKILL to each child that is not ``known``; how many. A child stays ours until *we* reap it, so no number here
    can belong to anybody else."""
    strangers = [pid for pid in children() if pid not in known]
    for pid in strangers:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(strangers)


def kill_descendants() -> None:
    """Kills and reaps until we have no child left, and so, being a subreaper, no descendant.

    1. A child that we do not see yet was forked by one that we are about to kill.
    2. When that one dies, the kernel first gives its children to us and only then lets us reap it.
    3. So after each reaping the list is complete as to the children of the dead, and the loop ends only when the kernel
       itself says that there is none.
    """
    while True:
        kill_children()
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
