"""``cancel`` and ``timeout`` inside a worker: KeyboardInterrupt in the one task it was meant for, and only in its code.

The daemon writes the call's number into INTERRUPT, fences, and sends INTERRUPT_SIGNAL; it repeats that every 100 ms
until the call has taken it (INTERRUPTED) or ended. Python runs our handler in the main thread, between two byte codes
or when a system call returned EINTR. The handler raises only if all of these hold:

1. INTERRUPT == RUNNING: the call that runs is the one meant. Both are read within the handler, in the thread that alone
   writes RUNNING, so nothing changes in between. A signal that comes late finds another number, or 0.
2. ``inside`` is set: the loop has called the user's function and it has not returned yet.
3. The interrupted frame is not one of the loop's own. Between the return of the user's function and ``inside =
   False`` lies
   a byte code or two, and the handler may run there: the frame tells. (A task that is a C function has no frame of
   its own, so it is called through ``call_builtin``.)
4. No mask: ``abi``'s own code inside a task (a nested ``get`` or ``remote``) is guarded where an exception would
   leave half
   a frame behind (``abi.guard``). There the interrupt is noted, and raised where the section ends or pauses to wait.

A coroutine is cancelled first, as asyncio does with Ctrl-C, and interrupted only if it does not even notice that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from abi.guard import Guard
from abi.objects.slot_page import INTERRUPT, INTERRUPT_SIGNAL, INTERRUPTED, RUNNING

if TYPE_CHECKING:
    import asyncio

OURS: Final[set[CodeType]] = set()
"""Code that runs between the moments at which ``inside`` is set and cleared, and is not the user's."""


class Interrupts(Guard):
    """One per worker, and the guard of its link. The loop sets and clears ``inside``, the runner of coroutines
    ``main_task``. Guarded sections nest; each has its own pause."""

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.inside = False
        self.main_task: asyncio.Task[Any] | None = None
        self._masked = False
        self._outer: list[bool] = []
        self._noted = 0
        """Number of the call that an interrupt came for while masked."""
        self._cancelled = 0
        """Number of the call whose coroutine was cancelled already."""
        signal.signal(INTERRUPT_SIGNAL, self._on_signal)
        signal.signal(signal.SIGINT, self._on_terminal)
        os.register_at_fork(after_in_child=_be_ordinary)

    def enter(self) -> None:
        self._outer.append(self._masked)
        self._masked = True

    def leave(self) -> None:
        self._masked = self._outer.pop()
        if self._noted and not self._masked:
            self._raise_noted()

    def pause(self) -> None:
        # A signal after this line raises by itself; one before it was noted.
        self._masked = False
        if self._noted:
            self._raise_noted()

    def resume(self) -> None:
        self._masked = True

    def meant(self) -> bool:
        """Whether the daemon asked for an interrupt of the call that runs now."""
        number: int = self.words[RUNNING]
        return number != 0 and number == self.words[INTERRUPT]

    def _raise_noted(self) -> None:
        noted, self._noted = self._noted, 0
        if self.inside and noted == self.words[RUNNING]:
            self.words[INTERRUPTED] = noted
            raise KeyboardInterrupt

    def _on_signal(self, _: int, frame: FrameType | None) -> None:
        number: int = self.words[RUNNING]
        if number != 0 and number == self.words[INTERRUPT]:
            self._interrupt(number, frame)

    def _on_terminal(self, _: int, frame: FrameType | None) -> None:
        """A SIGINT that a task or its children sent: what it does to any Python program, but never to the loop."""
        number: int = self.words[RUNNING]
        if number != 0:
            self._interrupt(number, frame)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.inside or (frame is not None and frame.f_code in OURS):
            return  # the daemon repeats itself while the call runs
        if self._masked:
            self._noted = number
            return
        if self.main_task is None or self.main_task.done() or self._is_stuck(self.main_task, number):
            self.words[INTERRUPTED] = number
            raise KeyboardInterrupt

    def _is_stuck(self, task: asyncio.Task[Any], number: int) -> bool:
        """Cancels the task at the first signal. At a repeated one: whether it has not even noticed, because it is stuck
        in code that does not await. One that has noticed is left to clean up."""
        if self._cancelled != number:
            self._cancelled = number
            task.cancel()
            task.get_loop().call_soon_threadsafe(_nothing)  # wakes the loop's select
            return False
        if getattr(task, "_must_cancel", False):
            return True
        self.words[INTERRUPTED] = number
        return False


def _be_ordinary() -> None:
    """In a child that a task forks: no call of ours runs there, and it does not have the slot page."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(INTERRUPT_SIGNAL, signal.SIG_DFL)


def _nothing() -> None:
    pass


def call_builtin(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python frame for a C function, by which the handler knows the task from the loop. Other callables as they
    are."""
    if hasattr(function, "__code__"):
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call
