"""The thread beside a connection that nobody attends to: ``f.remote(); time.sleep(10)`` must run, and print.

It is started at its first need and sleeps in one of three ways:

- PARKED: nothing is under way, or a caller receives and nothing has come for a while. A kick (one write to an
  eventfd) wakes it; a caller that stops receiving kicks. So does the end of the connection, which is dealt with at
  once: then the next call finds another, or none, rather than being what was under way when it was lost.
- WATCHING: answers or releases are due, without hurry. While callers receive it looks every ``TICK_MS`` and leaves
  the socket alone, since waking beside each caller's answer would cost that caller more than it saves; else it
  waits for the socket.
- DUE: items wait in the outbox. It sends them after ``linger_s``.

``arm`` and ``watch`` are called from the hot path, from finalisers and with locks held: they take none.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from abi.link import Link

PARKED: Final = 0
WATCHING: Final = 1
DUE: Final = 2

LINGER_S: Final = 0.001
TICK_MS: Final = 10
ALONE_MS: Final = 100
"""How long it waits for the socket at a time; releases may wait as long, what is to be sent wakes it."""
IDLE_TICKS: Final = 20
"""Looks without anything to do before it parks, so that a loop of single calls does not wake it for each."""


class Helper:
    def __init__(self, link: Link, linger_s: float) -> None:
        self._link = link
        self._linger_s = linger_s
        self.state = PARKED
        """PARKED is 0."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._eventfd = -1
        self.seen = 0
        """Counts what callers received: whether they do it themselves."""

    def arm(self) -> None:
        """Have the outbox sent within about a millisecond."""
        if self.state != DUE:
            self.state = DUE
            self._kick()

    def watch(self) -> None:
        """Have somebody look after the connection soon."""
        if self.state == PARKED:
            self.state = WATCHING
            self._kick()

    def stop(self) -> None:
        self._kick(start=False)

    def abandon(self) -> None:
        """In a forked child, which has no such thread."""
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1

    def __del__(self) -> None:
        # Not at the thread's end: 1. it sees the link closed. 2. a caller or a finaliser kicks. Were the descriptor
        # closed between the two, the kick would go nowhere or, worse, into a user's file that has got its number.
        if self._eventfd >= 0:
            os.close(self._eventfd)

    def _kick(self, *, start: bool = True) -> None:
        if self._thread is None and start and not self._start():
            return
        if self._eventfd >= 0:
            os.eventfd_write(self._eventfd, 1)

    def _start(self) -> bool:
        # Not blocking: a finaliser may run in the middle of the other caller's start. The other then kicks.
        if self._link.closed or not self._starting.acquire(blocking=False):
            return False
        try:
            if self._thread is None:
                self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                thread = threading.Thread(target=self._run, name="abi", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:  # the interpreter ends, or may not have another thread: callers do all of it
            return False
        finally:
            self._starting.release()
        return True

    def _run(self) -> None:
        idle, seen = 0, -1
        while not self._link.closed:
            if self.state == DUE:
                time.sleep(self._linger_s)
                self.state = WATCHING
                self._link.flush()
                idle = 0
            elif self.state == PARKED:
                if self._sleep(-1, select.POLLRDHUP):
                    self.watch()
                idle, seen = 0, -1
            else:
                moved = seen != self.seen
                attended = self._link.is_led or moved
                seen = self.seen
                worked = self._watch(attended)
                idle = 0 if worked or moved else idle + 1
                if idle > IDLE_TICKS:
                    self._park()

    def _watch(self, attended: bool) -> bool:
        link = self._link
        if link.lost:
            link.receive_now()
            if link.lost:  # another thread tries for a connection
                self._sleep(TICK_MS)
            return True
        readable = self._sleep(TICK_MS) if attended else self._sleep(ALONE_MS, select.POLLIN)
        if self.state == DUE:
            return True
        if link.outbox or link.releases:
            link.flush()
        if readable:
            link.receive_now()
        # A caller that waits for hours needs nobody beside it.
        return readable or (link.busy() and not attended)

    def _park(self) -> None:
        # 1. nothing is due here. 2. a caller appends and finds WATCHING, so it does not kick. 3. PARKED for ever.
        # So look once more after saying PARKED. The same with a caller that stops receiving while answers are due: it
        # gives up the lead and then looks at our state.
        link = self._link
        self.state = PARKED
        if link.outbox or link.releases or (link.busy() and not link.is_led):
            self.state = WATCHING

    def _sleep(self, timeout_ms: int, of_socket: int = 0) -> bool:
        """Whether the connection has what was asked for, POLLIN or POLLRDHUP; a kick ends the sleep as well."""
        poll = select.poll()
        poll.register(self._eventfd, select.POLLIN)
        own = -1
        if of_socket:
            own = self._link.sock.fileno()
            if own < 0:
                time.sleep(LINGER_S)
                return False
            poll.register(own, of_socket)
        ready = poll.poll(timeout_ms)
        if any(fd == self._eventfd for fd, _event in ready):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._eventfd)
        return any(fd == own for fd, _event in ready)
