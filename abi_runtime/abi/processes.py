"""What Linux offers for the care of processes and Python does not pass on: prctl(2), and the list of one's children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36

_libc: ctypes.CDLL | None = None


def libc() -> ctypes.CDLL:
    """The C library of this process, with ``prctl`` declared."""
    global _libc
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
    return _libc


def prctl(option: int, argument: int) -> None:
    """Raises OSError."""
    if libc().prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def become_subreaper() -> None:
    """Orphans among our descendants become our children, whatever sessions they made for themselves."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def return_memory() -> None:
    """Give the pages that were freed back to the kernel (malloc_trim(3)): the C library keeps those that lie below one
    that is used. Takes milliseconds. A C library without it keeps what it keeps."""
    with contextlib.suppress(AttributeError):
        libc().malloc_trim(ctypes.c_size_t(0))


def children() -> list[int]:
    """Our children, those of every thread, zombies included.

    A child that goes while the list is made may hide another one (proc(5)); who must have all asks again after each
    death.
    """
    found: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.readall().split())
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or a thread that ended meanwhile
        me = os.getpid()
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent_of(entry) == me]
    return found


def is_zombie(pid: int) -> bool:
    try:
        return _stat(pid)[0] == b"Z"
    except (OSError, IndexError):
        return False


def _parent_of(pid: str) -> int:
    try:
        return int(_stat(pid)[1])
    except (OSError, IndexError, ValueError):
        return -1


def _stat(pid: int | str) -> list[bytes]:
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        # The name may hold blanks and parentheses; the fields behind the last parenthesis may not.
        return file.readall().rpartition(b")")[2].split()


def describe_status(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal_name(os.WTERMSIG(status))}"
    return f"exit code {os.WEXITSTATUS(status)}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
