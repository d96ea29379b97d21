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

LONGEST_NS: Final = 300_000
"""About what a single call takes on a busy machine; what is not there by then will take longer than a wake-up."""


class Spin:
    """For one socket. ``look`` before a wait that would sleep, ``slept`` after it."""

    def __init__(self, sock: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.is_worth_it = len(os.sched_getaffinity(0)) > 1
        self._may_be = self.is_worth_it

    def look(self) -> None:
        """Returns when something can be read, or when looking any longer is in vain."""
        poll = self._poll.poll
        end = monotonic_ns() + LONGEST_NS
        while not poll(0):
            if monotonic_ns() > end:
                self.is_worth_it = False
                return

    def slept(self, nanoseconds: int) -> None:
        """How long a wait took without looking."""
        self.is_worth_it = self._may_be and nanoseconds < LONGEST_NS
