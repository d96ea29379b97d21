"""Looking for an answer without sleeping, for the few microseconds in which it is worth it.

A wake-up across processors costs 50 to 100 µs where an idle processor halts (virtual machines do), and a single call is
four of them in a row. A caller that keeps looking spares its own, and keeps its processor from halting, so that the
others follow each other on the one that is left. It is worth it only where one answer is due and answers have been
coming quickly: a look in vain ends it, and a quick answer after sleeping brings it back. Prior art: adaptive mutexes
(Solaris; glibc's PTHREAD_MUTEX_ADAPTIVE_NP).
"""

from __future__ import annotations

import os
import select
import socket
from time import monotonic_ns
from typing import Final

LONGEST_NS: Final = 1_000_000
"""An answer that takes longer is slept for. A single call takes 0.2 ms, where the machine is shared up to 0.7."""


class Spin:
    """For one socket. ``look`` before a wait that would sleep, ``slept`` after it."""

    def __init__(self, sock: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._may_be = len(os.sched_getaffinity(0)) > 1
        self._usual_ns = LONGEST_NS >> 1
        self.is_worth_it = self._may_be

    def look(self) -> None:
        """Returns when something can be read, or after twice the usual time: looking any longer is in vain."""
        poll = self._poll.poll
        begin = now = monotonic_ns()
        end = begin + min(self._usual_ns << 1, LONGEST_NS)
        while not poll(0):
            now = monotonic_ns()
            if now > end:
                self.is_worth_it = False
                return
        self._usual_ns += now - begin - self._usual_ns >> 3

    def slept(self, nanoseconds: int) -> None:
        """How long a wait took without looking."""
        self._usual_ns = nanoseconds
        self.is_worth_it = self._may_be and nanoseconds < LONGEST_NS
