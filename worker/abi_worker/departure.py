"""How a worker ends by itself: when, and in what order."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import Final, NoReturn

from abi import exits
from abi.processes import children, is_zombie
from abi_worker import linux

IDLE_S: Final = 1.0
"""So long without work, a worker with zombies leaves."""
LEAVE_S: Final = 5.0
"""For what was registered with ``atexit``; the daemon gives a worker that it told to leave as long."""
ZOMBIES_MAX: Final = 100
"""With more of them a busy worker leaves as well: each holds a process number, of which a host may have 32768."""


def has_children() -> bool:
    """Whether there is anybody to become a zombie. 0.5 µs; reaps nobody."""
    try:
        _peek()
    except ChildProcessError:
        return False
    return True


def has_zombies() -> bool:
    """A worker must not reap: a number that it waits for may belong to a ``Popen`` of the user's, which would then
    wait for ever, or signal a stranger. So it looks without taking, and leaves; its zombies go to the zygote, which
    reaps."""
    try:
        return _peek() is not None
    except ChildProcessError:
        return False


def count_zombies() -> int:
    """Exact enough: children of all our threads that wait to be reaped."""
    return sum(map(is_zombie, children()))


def _peek() -> object:
    return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def daemon_is_gone(why: str) -> None:
    """Called by whichever thread notices. What runs is of no use to anybody any more."""
    with contextlib.suppress(Exception):
        print(f"abi: the worker lost its daemon, or a task closed the connection to it: {why}", file=sys.stderr)
    os._exit(exits.CUT_OFF)


def leave(status: int) -> NoReturn:
    """Runs what the user registered with ``atexit`` and sends what is buffered. Threads are not waited for, and a child
    process that ``multiprocessing`` waits for not longer than LEAVE_S: others wait for this worker's place."""
    timer = threading.Timer(LEAVE_S, os._exit, (status,))
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread is to be had: then the daemon ends us, if it told us to go
        timer.start()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    linux.flush_c_output()
    os._exit(status)
