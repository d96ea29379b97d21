"""Processes as `/proc` shows them: who descends from whom, what they cost, and how they are all ended.

psutil would do, but this also runs in the Python of a peer's environment, where only the standard library is sure.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator

PR_SET_PDEATHSIG = 1  # prctl(2), <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
KILL_S = 10.0
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def descendants(root: int) -> list[int]:
    """Every living process below `root`, parents first. Zombies are not alive."""
    children: dict[int, list[int]] = {}
    dead: set[int] = set()
    for pid, parent, state in _all():
        children.setdefault(parent, []).append(pid)
        if state in "ZX":
            dead.add(pid)
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        todo += below
        found += below
    return [pid for pid in found if pid not in dead]


class Stolen:
    """What the host of this virtual machine takes from it."""

    def __init__(self) -> None:
        self._before = _stolen_ticks()

    def share(self) -> float:
        """Of all processors' time since it was last asked, or made: the share that was wanted and went to others."""
        before, self._before = self._before, _stolen_ticks()
        passed = self._before[1] - before[1]
        return (self._before[0] - before[0]) / passed if passed else 0.0


def _stolen_ticks() -> tuple[int, int]:
    """(ticks that this virtual machine wanted and its host gave to others, all ticks), of all processors since boot."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]  # user … steal; guests' are in user's
    return ticks[7], sum(ticks)


def command_line(pid: int) -> str:
    """The arguments, joined by blanks; "" for a process that is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def command_lines() -> list[str]:
    """Of all processes that show one."""
    return [line for pid, _, _ in _all() if (line := command_line(pid))]


def cpu_ns(pid: int) -> int:
    """CPU time of a process's living threads in ns, 0 if it is gone.

    The scheduler's own count (`schedstat`), since the ticks of `stat` are 10 ms each; those serve where it is missing.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return sum(_thread_ns(pid, thread) for thread in threads)
    except OSError:
        return 0


def tree_cpu_ns(root: int) -> dict[int, int]:
    """CPU time of `root` and of everything below it, by process."""
    return {pid: cpu_ns(pid) for pid in [root, *descendants(root)]}


def cpu_between(before: dict[int, int], after: dict[int, int]) -> int:
    """What a tree used between two looks at it, in ns. A process that ended in between is not in it."""
    return sum(ns - before.get(pid, 0) for pid, ns in after.items())


def pss_bytes(pid: int) -> int:
    """Memory of a process, shared pages divided among those who share them; RSS where the kernel tells no more."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Inside it, whatever our descendants leave behind becomes our child instead of being lost to init."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Ask for SIGTERM when the parent (process `parent`) dies. Raises ProcessLookupError if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError(f"process {parent}, which wanted this measured, is gone")


def end_descendants(patience_s: float) -> list[str]:
    """Wait until nothing runs below us, kill what still does after `patience_s`; the command lines of those killed.

    For a subreaper, else it would not see those whose parents have died. Reaps them, so none stays a zombie. A process
    that even SIGKILL does not end (it hangs in the kernel) is given up after `KILL_S`.
    """
    deadline = time.monotonic() + patience_s
    killed: dict[int, str] = {}
    while True:
        _reap()
        left = descendants(os.getpid())
        if not left or time.monotonic() >= deadline + KILL_S:
            return list(killed.values())
        if time.monotonic() >= deadline:
            for pid in left:
                killed.setdefault(pid, command_line(pid) or f"process {pid}")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _reap() -> None:
    """Every child that has ended. Only for when nobody waits for one of them by its number any more."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _all() -> Iterator[tuple[int, int, str]]:
    """(pid, parent, state) of every process that could be read."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                text = file.read()
        except OSError:
            continue
        # The command stands in parentheses and may itself hold blanks and parentheses.
        state, parent = text[text.rindex(b")") + 2 :].split()[:2]
        yield int(name), int(parent), state.decode()


def _thread_ns(pid: int, thread: str) -> int:
    try:
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0])
    except FileNotFoundError:
        pass
    try:
        with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    fields = text[text.rindex(b")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) * TICK_NS
