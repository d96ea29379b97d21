"""What a task may change of its process and the next one must find as it was: directory, signals, limits.

A change is noticed by wrapping the functions that make it, not by asking the kernel after each call, which would cost
more than a small task: so ``changed`` is one flag that the loop looks at. What C code does unasked is not noticed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posix
import resource
import signal
from collections.abc import Callable
from typing import Any, Final

_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Surroundings:
    """One per worker, made when its own handlers are in place."""

    def __init__(self) -> None:
        self.changed = False
        self._fd = -1
        self._handlers: dict[int, Any] = {}
        self._limits: dict[int, tuple[int, int]] = {}
        for module in (os, posix):
            for name in ("chdir", "fchdir"):
                self._wrap(module, name)
        for name in ("setitimer", "alarm", "pthread_sigmask", "set_wakeup_fd"):
            self._wrap(signal, name)
        for name in ("signal", "siginterrupt"):
            self._wrap(signal, name, self._note_handler)
        for name in ("setrlimit", "prlimit"):
            self._wrap(resource, name, self._note_limits)

    def _wrap(self, module: Any, name: str, note: Callable[..., None] | None = None) -> None:
        function = getattr(module, name)

        @functools.wraps(function)
        def change(*args: Any, **kwargs: Any) -> Any:
            if note is not None:
                note(*args)
            self.changed = True
            return function(*args, **kwargs)

        setattr(module, name, change)

    def _note_handler(self, number: int = 0, *_: Any) -> None:
        if number not in self._handlers:
            with contextlib.suppress(ValueError, TypeError):  # the task's mistake: the function itself tells it
                self._handlers[number] = signal.getsignal(number)

    def _note_limits(self, *_: Any) -> None:
        for name in dir(resource):
            if name.startswith("RLIMIT_"):
                number = getattr(resource, name)
                self._limits.setdefault(number, resource.getrlimit(number))

    def begin(self, directory: str) -> str:
        """Makes ``directory`` the one that all calls begin in; ``/`` when that cannot be, and then why, in words."""
        problem = ""
        try:
            os.chdir(directory)
        except (OSError, ValueError) as error:
            os.chdir("/")
            problem = f"abi: the program's directory {directory!r} cannot be entered here ({error}); tasks run in /"
        self._fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.changed = False
        return problem

    def restore(self) -> bool:
        """Everything as it was. False if that cannot be: a limit that may only be lowered."""
        with contextlib.suppress(OSError):  # the task closed our descriptor: the next call stays where that one went
            os.fchdir(self._fd)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            if handler is not None:  # else it was not installed from Python
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, handler)
        self._handlers.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        whole = True
        for number, limits in self._limits.items():
            try:
                resource.setrlimit(number, limits)
            except (OSError, ValueError):
                whole = False
        self._limits.clear()
        self.changed = False
        return whole
