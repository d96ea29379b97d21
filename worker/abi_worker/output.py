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

from abi.objects.slot_page import READING, RUNNING
from abi.wire.schema import Kind, Printed
from abi_worker import birth, departure

READ_BYTES: Final = 64 * 1024
PRINTED_BYTES_MAX: Final = 1024 * 1024
"""A call that ends while others go on printing (threads, subprocesses) is not made to wait for them for ever."""
_SPINS: Final = 100
_PAUSE_S: Final = 50e-6


class Pipes:
    """The worker's own copies of its pipes' read ends. ``poll(0)`` is empty when there is nothing to drain: 0.35 µs.

    ``pipes`` are both ends of stdout's and then stderr's pipe, write ends by read ends. A task may close descriptors 1
    and 2 or Python's streams, or put others in their place: the next one finds them as they were. Not seen is who
    closes a descriptor and opens something else under its number.
    """

    def __init__(self, pipes: dict[int, int], words: memoryview, outbox: list[Any]) -> None:
        self._streams = dict(zip(pipes, (1, 2), strict=True))
        self._spares = dict(zip((1, 2), pipes.values(), strict=True))
        self._words = words
        self._outbox = outbox
        poll = select.poll()
        for fd in self._streams:
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        for fd in self._spares:
            poll.register(fd, 0)  # tells all the same when it is closed: POLLNVAL
        self.poll = poll.poll
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
        for fd, event in self.poll(0):
            if event & select.POLLNVAL:
                if fd in self._streams:
                    self._words[RUNNING] = number  # it is this call's doing
                    departure.daemon_is_gone("its pipes are closed")
                self._restore()
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
        except (OSError, ValueError):  # the task closed them, or the descriptors under them
            self._restore()
        if sys.stdout is not self.stdout or sys.stderr is not self.stderr:
            self._restore()

    def _restore(self) -> None:
        for fd, spare in self._spares.items():
            try:
                os.fstat(fd)
            except OSError:
                with contextlib.suppress(OSError):  # the task closed that one too
                    os.dup2(spare, fd, inheritable=True)
        for stream in (self.stdout, self.stderr, sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or no stream at all; else it may hold text for us
                stream.flush()
        if self.stdout.closed:
            self.stdout = birth.text_stream(1, "<stdout>")
        if self.stderr.closed:
            self.stderr = birth.text_stream(2, "<stderr>")
        sys.stdout, sys.stderr = self.stdout, self.stderr
