"""What Linux offers for the care of processes and Python does not pass on: prctl(2) and the list of one's children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Container
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_IOLBF: Final = 1
OOM_SCORE_MORE: Final = 500
"""A worker is to be killed for want of memory long before its daemon, and before most of what else runs."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def become_subreaper() -> None:
    """Orphans among our descendants become our children, whatever sessions they made for themselves."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """SIGKILL to us when ``parent`` dies. Leaves at once when it already has: the kernel tells only of later deaths."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def name_process(name: str) -> None:
    """What ``top`` and ``ps -o comm`` show: 15 bytes at most."""
    with contextlib.suppress(OSError):
        buffer = ctypes.create_string_buffer(name.encode()[:15])
        _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def be_first_to_die() -> None:
    """Raises our score for the kernel's out-of-memory killer; where that is not allowed, things stay as they are."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
        score = int(file.read())
        file.write(str(min(score + OOM_SCORE_MORE, 1000)).encode())


def line_buffer_c_output() -> None:
    """C code's ``printf`` goes out at each newline: on a pipe it would wait for 4 KiB, and be lost with a crash."""
    with contextlib.suppress(ValueError, AttributeError):
        _libc.setvbuf(ctypes.c_void_p.in_dll(_libc, "stdout"), None, _IOLBF, ctypes.c_size_t(0))


def flush_c_output() -> None:
    _libc.fflush(None)


def children() -> list[int]:
    """Our children, zombies included. For a process of one thread: the kernel lists them by thread.

    A child that goes while the list is made may hide another one (proc(5)); who must have all asks again after each
    death.
    """
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.readall().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent_of(entry) == me]


def _parent_of(pid: str) -> int:
    try:
        return int(_stat(pid)[1])
    except (OSError, IndexError, ValueError):
        return -1


def is_zombie(pid: int) -> bool:
    try:
        return _stat(pid)[0] == b"Z"
    except (OSError, IndexError):
        return False


def _stat(pid: int | str) -> list[bytes]:
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        # The name may hold blanks and parentheses; the fields behind the last parenthesis may not.
        return file.readall().rpartition(b")")[2].split()


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
