"""The one memory fence between a daemon and its workers, paid by the side that rarely needs it.

Recall is Dekker's pattern. The worker stores RUNNING, then loads EPOCH; the daemon stores EPOCH, then loads RUNNING. At
least one of them must see the other's store, or a call would be both taken back and started. Ordinary processors let
a load overtake an earlier store (x86: through the store buffer), so each side would need a full fence; the worker's
would be paid a hundred thousand times a second. Instead the daemon alone calls membarrier(2), which has every running
thread of the registered processes execute a fence *at some moment between the call's begin and end*:

1. worker: RUNNING = n          (may wait in its store buffer)
2. daemon: EPOCH = e; barrier() — the worker's processor executes a fence at some moment M within
3. worker: loads EPOCH.   Before M: then RUNNING = n was stored before M and is visible when barrier() returns: the
   daemon sees it.  After M: then EPOCH = e, stored before barrier() began, is visible: the worker sees it.

Python cannot reorder the two in the worker either: each is a byte code of its own that goes through a C function.
A process that is not running needs no fence: the context switch was one. Prior art: liburcu's memb flavour,
Dekker/Lamport; source: membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED (Linux 4.16).

Fallback, where a sandbox forbids the call: 200 µs of waiting. Store buffers drain within well under a microsecond
once an instruction has retired; no architecture promises a bound, so this is a practice, not a proof, and
``proven()`` says which.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_GLOBAL_EXPEDITED: Final = 1 << 1
_REGISTER_GLOBAL_EXPEDITED: Final = 1 << 2
_NUMBERS: Final = {"x86_64": 324, "aarch64": 283, "arm64": 283, "riscv64": 283}
_DRAIN_S: Final = 200e-6

_command: Callable[[int], int] | None = None


def _membarrier() -> Callable[[int], int]:
    """The system call; made once, since loading ctypes costs some milliseconds. -1 where there is none."""
    global _command
    if _command is None:
        number = _NUMBERS.get(os.uname().machine)
        if number is None:
            _command = lambda _: -1  # noqa: E731 — a stand-in of one expression
        else:
            import ctypes

            call = ctypes.CDLL(None).syscall
            call.restype = ctypes.c_long
            call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_int)
            _command = lambda command: int(call(number, command, 0, 0))  # noqa: E731
    return _command


def register() -> bool:
    """Lets other processes' barriers reach the threads of this one. Once per process and after every exec; a fork
    inherits it. False where the kernel refuses."""
    return _membarrier()(_REGISTER_GLOBAL_EXPEDITED) == 0


def barrier() -> None:
    """Every thread of every registered process has executed a full fence when this returns. About 2–10 µs."""
    if _membarrier()(_GLOBAL_EXPEDITED) != 0:
        time.sleep(_DRAIN_S)


def proven() -> bool:
    """Whether ``barrier`` is the kernel's, and not the fallback."""
    return _membarrier()(_GLOBAL_EXPEDITED) == 0
