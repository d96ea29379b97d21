"""A thread that waits on a connection while another one receives (``abi.link``)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class Follower:
    """``done`` says whether its wait is over. ``wake`` may come before ``sleep`` and any number of times."""

    __slots__ = ("_lock", "done")

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, timeout: float) -> bool:
        """In seconds, -1: until woken. Whether it was."""
        return self._lock.acquire(timeout=timeout)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._lock.release()
