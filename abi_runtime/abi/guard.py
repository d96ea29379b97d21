"""Sections in which Ctrl-C must wait: half a frame taken from a socket, a lock just acquired, an end half delivered.

A Python signal handler runs between any two instructions of the main thread, and may raise there. Between
``guard.enter()`` and ``guard.leave()`` it only notes the signal; ``pause`` and ``resume`` enclose a blocking call,
where it may raise again. The four are called in the main thread only. A worker brings a guard of its own (its
interrupts are meant for one call), a program has ``SigintGuard``.

Prior art: trio's ``KeyboardInterrupt`` protection, which marks frames; here a handler is swapped in for the few
microseconds of a section, so that nothing of ours is visible in ``signal.getsignal`` while user code runs.
"""

from __future__ import annotations

import threading

# What the module `signal` wraps into enums, at ten times the cost and twice a section.
from _signal import SIGINT, getsignal, signal  # type: ignore[import-not-found]  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Guard:
    """Protects nothing: for threads other than the main one, where no signal handler ever runs."""

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class SigintGuard(Guard):
    """Puts off SIGINT's Python handler, whichever it is, to the end of the section or its next pause."""

    def __init__(self) -> None:
        self._depth = 0
        self._paused = False
        self._noted = False
        self._previous: Any = None

    def enter(self) -> None:
        if self._depth:
            self._depth += 1
            return
        self._noted = False
        self._paused = False
        previous = getsignal(SIGINT)
        # SIG_IGN, SIG_DFL and a handler installed from C raise nothing in Python.
        self._previous = previous if callable(previous) else None
        try:
            if self._previous is not None:
                signal(SIGINT, self._on_signal)
            self._depth = 1
        except BaseException:
            self._restore()
            raise

    def leave(self) -> None:
        if self._depth > 1:
            self._depth -= 1
            return
        self._restore()
        if self._noted:
            self._raise()

    def pause(self) -> None:
        # Order matters: a signal after the first line raises by itself, one before it was noted.
        self._paused = True
        if self._noted:
            self._raise()

    def resume(self) -> None:
        self._paused = False

    def _restore(self) -> None:
        self._depth = 0
        self._paused = False
        if self._previous is not None and getsignal(SIGINT) == self._on_signal:
            signal(SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._paused:
            self._previous(number, frame)
        else:
            self._noted = True

    def _raise(self) -> None:
        self._noted = False
        self._previous(SIGINT, None)


NO_GUARD = Guard()


@contextmanager
def uninterrupted() -> Generator[None]:
    """A section that has no guard of its own: Ctrl-C raises at its end. In other threads than the main one: nothing."""
    guard = SigintGuard() if threading.current_thread() is threading.main_thread() else NO_GUARD
    guard.enter()
    try:
        yield
    finally:
        guard.leave()
