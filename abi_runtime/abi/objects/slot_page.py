"""One page of memory that a worker and its daemon share: what runs, since when, and what has been recalled.

Every word is written by one side only, as one aligned 8-byte store (``memoryview.cast('Q')`` compiles to a single
move on x86-64 and aarch64), so no lock is needed and no value is ever torn. The two sides' words lie in cache lines
of their own.

The worker's side of the recall has no fence in it; see ``fence`` for why that is right.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

PAGE_BYTES: Final = 4096

# Words of the worker: the first cache line.
RUNNING: Final = 0
"""Number of the call that runs; 0: none."""
SINCE: Final = 1
"""CLOCK_MONOTONIC ns at which it began. Written before RUNNING, so whoever sees the number sees its time."""
STARTED: Final = 2
"""Number of the last call that started: RUNNING's memory. What has a higher one has not begun."""
INTERRUPTED: Final = 3
"""Number of the call that took its interrupt: the daemon need not repeat it."""
LEFT: Final = 4
"""1: the worker leaves of its own accord. Its results have gone out, and it starts nothing that comes now."""

ENDING: Final = 1 << 63
"""Set in RUNNING beside the number of a call that may be started only once: it is over, its result has not left yet.
Who asks for blame or recall takes it as running; who reads the pipes does not (``SlotPage.owns_pipes``)."""

# Words of the daemon: the second cache line.
EPOCH: Final = 8
"""Calls of a run with a lower epoch have been recalled: the worker must not start them."""
READING: Final = 9
"""1 while the daemon reads the worker's pipes on behalf of the running call."""
INTERRUPT: Final = 10
"""Number of the call that the next interrupt is meant for."""

INTERRUPT_SIGNAL: Final = 39
"""SIGRTMIN + 5 with glibc. A number, because the daemon's C library need not be the worker's."""


class SlotPage:
    """``SlotPage.create()`` in the daemon, ``SlotPage.attach(fd)`` in the worker. Hot code uses ``words`` directly."""

    __slots__ = ("_map", "words")

    def __init__(self, mapping: mmap.mmap) -> None:
        self._map = mapping
        self.words = memoryview(mapping).cast("Q")

    @classmethod
    def create(cls) -> tuple[SlotPage, int]:
        """A zeroed page and its descriptor, which the caller closes."""
        fd = os.memfd_create("abi-slot", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, PAGE_BYTES)
            return cls.attach(fd), fd
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> SlotPage:
        """The page behind ``fd``, which may be closed afterwards. Raises OSError or ValueError when it is none."""
        return cls(mmap.mmap(fd, PAGE_BYTES))

    @property
    def running(self) -> int:
        """The number alone: a call that is ENDING still counts as running."""
        return self.words[RUNNING] & ~ENDING

    @running.setter
    def running(self, number: int) -> None:
        self.words[RUNNING] = number

    @property
    def since(self) -> int:
        return self.words[SINCE]

    @since.setter
    def since(self, monotonic_ns: int) -> None:
        self.words[SINCE] = monotonic_ns

    @property
    def started(self) -> int:
        return self.words[STARTED]

    @started.setter
    def started(self, number: int) -> None:
        self.words[STARTED] = number

    @property
    def epoch(self) -> int:
        return self.words[EPOCH]

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.words[EPOCH] = epoch

    @property
    def reading(self) -> int:
        return self.words[READING]

    @reading.setter
    def reading(self, flag: int) -> None:
        self.words[READING] = flag

    @property
    def interrupt(self) -> int:
        return self.words[INTERRUPT]

    @interrupt.setter
    def interrupt(self, number: int) -> None:
        self.words[INTERRUPT] = number

    @property
    def interrupted(self) -> int:
        return self.words[INTERRUPTED]

    @property
    def left(self) -> int:
        return self.words[LEFT]

    @left.setter
    def left(self, flag: int) -> None:
        self.words[LEFT] = flag

    def owns_pipes(self, number: int) -> bool:
        """Whether what lies in the pipes is of this call, and the daemon's to read. Between READING = 1 and 0 only."""
        return self.words[RUNNING] == number

    def keep_from_forks(self) -> None:
        """Leaves the page out of forked children. One that returns from a task into our loop dies of it (SIGSEGV)
        rather than speak in its parent's name."""
        self._map.madvise(mmap.MADV_DONTFORK)

    def close(self) -> None:
        """Unmaps the page; ``words`` is unusable afterwards. A second call does nothing."""
        self.words.release()
        self._map.close()

    def __repr__(self) -> str:
        try:
            return f"<SlotPage running={self.running} started={self.started} epoch={self.epoch}>"
        except ValueError:
            return "<SlotPage closed>"
