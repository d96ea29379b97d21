"""What a call printed, told apart from what the next one prints, although both go through the same two pipes.

While a call runs, the daemon reads the pipes and knows whose the bytes are. At its end the worker takes over:

1. worker: the result is pickled (this may print), Python's streams are flushed; RUNNING is still n
2. worker: RUNNING = 0 (or n with ENDING, when the call may be started only once)
3. daemon, if it reads just now: READING = 1; barrier(); loads RUNNING. It is n → it reads, then READING = 0. Not n → it
   reads nothing, and READING = 0.
4. worker: loads READING. 1 → it waits for 0. By the fence (``abi.objects.fence``) at least one of 3 and 4 sees the
   other.
5. worker: what is in the pipes now is n's, and nobody else reads: it reads it and queues PRINTED(n) before RESULT(n).
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import Any, Final, TextIO

from abi.objects.slot_page import READING
from abi.wire.schema import Kind, Printed

READ_BYTES: Final = 64 * 1024
PRINTED_BYTES_MAX: Final = 1024 * 1024
"""A call that ends while others go on printing (threads, subprocesses) is not made to wait for them for ever."""
_SPINS: Final = 100
_PAUSE_S: Final = 50e-6


class Pipes:
    """The worker's own copies of its pipes' read ends. ``poll(0)`` is empty when there is nothing to drain: 0.35 µs."""

    def __init__(self, stdout_read: int, stderr_read: int, words: memoryview, outbox: list[Any]) -> None:
        self._streams = {stdout_read: 1, stderr_read: 2}
        self._words = words
        self._outbox = outbox
        poll = select.poll()
        for fd in self._streams:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        self.poll = poll.poll
        # Kept, because a task may put something else in their place: what it wrote before must not be lost.
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr

    def _await_daemon(self) -> None:
        """Until the daemon has stopped reading: it began before it could see that the call is over."""
        words, spins = self._words, 0
        while words[READING]:
            spins += 1
            if spins < _SPINS:
                os.sched_yield()
            else:
                time.sleep(_PAUSE_S)

    def drain(self, number: int) -> None:
        """PRINTED for all that is there, in order within each stream, once the daemon has stopped reading."""
        self._await_daemon()
        for fd, stream in self._streams.items():
            taken = 0
            while taken < PRINTED_BYTES_MAX:
                try:
                    data = os.read(fd, READ_BYTES)
                except OSError:  # it is empty, or the task closed it
                    break
                if not data:
                    break
                taken += len(data)
                self._outbox.append((Kind.PRINTED, Printed(number, stream, data)))

    def flush(self) -> None:
        """Sends a partial line, left by ``print(end="")``: what is complete went at its newline."""
        try:
            self.stdout.flush()
            self.stderr.flush()
        except (OSError, ValueError):  # the task closed them
            pass
        if sys.stdout is not self.stdout or sys.stderr is not self.stderr:
            self._flush_replaced()

    def _flush_replaced(self) -> None:
        """A task put something of its own in the streams' place: it may hold text for our descriptors too."""
        for stream in (self.stdout, self.stderr, sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or no stream at all
                stream.flush()
