"""What the tasks of the bench do. Every contender imports these by name, so none pays for pickling code.

`clock` is CLOCK_MONOTONIC, which all processes of a host share: times taken in different workers may be compared.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

clock = time.monotonic


def noop() -> None:
    """Nothing: all that is measured is the way there and back."""


def take(payload: bytes) -> None:
    """Nothing, with an argument."""


def same(value: int) -> int:
    """Its argument."""
    return value


def pause(seconds: float) -> int:
    """Sleeps; the process id of where it did."""
    time.sleep(seconds)
    return os.getpid()


def spin(iterations: int) -> int:
    """A fixed amount of computing, however long it takes: then a busy neighbour shows."""
    total = 0
    for number in range(iterations):
        total += number & 7
    return total


def stamped(seconds: float) -> tuple[float, float]:
    """Sleeps; when it began and when it ended."""
    begin = clock()
    time.sleep(seconds)
    return begin, clock()


def numbered(index: int, seconds: float) -> tuple[int, int, int]:
    """Sleeps; its own number, the process id, and which attempt this was (1 where nobody counts)."""
    time.sleep(seconds)
    return index, os.getpid(), _attempt()


def held(lock: str, sign: str) -> None:
    """Says that it runs by making the file `sign`, then waits, at no cost, until nobody holds `lock` exclusively."""
    with open(lock, "rb") as file:
        with open(sign, "wb"):
            pass
        fcntl.flock(file, fcntl.LOCK_SH)


def announced(fifo: str, seconds: float) -> None:
    """Writes its process id to `fifo`, then sleeps."""
    with open(fifo, "w", encoding="ascii") as file:
        print(os.getpid(), file=file)
    time.sleep(seconds)


def _attempt() -> int:
    abi = sys.modules.get("abi")
    current_task = getattr(abi, "current_task", None)
    task = current_task() if current_task is not None else None
    return 1 if task is None else int(task.attempt)
