"""Looking for what comes next without sleeping, for the few microseconds in which it is worth it.

A wake-up across processors costs 50 to 100 µs where an idle processor halts, and a millisecond where its host is busy
(virtual machines are such places). A single call is four of them in a row: the daemon's, the worker's, the daemon's
again and the caller's. A caller that keeps looking for its answer, and a daemon that keeps looking for the caller's
next word, keep one processor each from halting; the worker takes turns with the daemon.

It is worth it only where looks find something: those in vain are followed by more and more waits that sleep, and a
quick end of such a wait brings the looks back. Prior art: adaptive mutexes (Solaris; glibc's
PTHREAD_MUTEX_ADAPTIVE_NP), the kernel's own halt polling.
"""

from __future__ import annotations

import os
import select
import socket
from time import monotonic_ns
from typing import Final

USUAL_FACTOR_LOG2: Final = 2
"""A look lasts up to four times as long as looks usually take to find something, for the machine has its moments."""
SLEEPS_MAX: Final = 64
"""Waits that sleep between two looks in vain, at most: what is looked for may have become quick in the meantime."""


class Spin:
    """For one socket. While ``is_worth_it``, ``look`` before a wait that would sleep; else tell ``slept`` after it.

    What takes longer than ``longest_ns`` is slept for. Where a process may use one processor only, nothing is worth it.
    """

    def __init__(self, sock: socket.socket, longest_ns: int) -> None:
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._longest_ns = longest_ns
        self._usual_ns = longest_ns >> USUAL_FACTOR_LOG2
        self._may_be = len(os.sched_getaffinity(0)) > 1
        self._in_vain = 0
        self._sleeps = 0
        self.is_worth_it = self._may_be

    def look(self) -> None:
        """Returns when something can be read, or when looking any longer is in vain."""
        poll, give_way = self._poll.poll, os.sched_yield
        begin = now = monotonic_ns()
        end = begin + min(self._usual_ns << USUAL_FACTOR_LOG2, self._longest_ns)
        while not poll(0):
            now = monotonic_ns()
            if now > end:
                # Once may be the machine's doing. From the second time on: 2, 6, 14, … waits that sleep.
                self._in_vain += 1
                self._sleeps = min((1 << self._in_vain) - 2, SLEEPS_MAX)
                self.is_worth_it = self._sleeps == 0
                return
            give_way()  # what we look for may be waiting for this processor
        self._in_vain = 0
        self._usual_ns += now - begin - self._usual_ns >> 3

    def slept(self, nanoseconds: int) -> None:
        """How long a wait took without looking."""
        self._sleeps -= 1
        if self._may_be and (self._sleeps <= 0 or nanoseconds < self._longest_ns):
            self._usual_ns = min(nanoseconds, self._longest_ns)
            self.is_worth_it = True
