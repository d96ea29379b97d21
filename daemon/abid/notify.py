"""Words to systemd (sd_notify(3)): ready, reloading, stopping, alive. Silent where nobody listens.

The watchdog is fed by the loop's own lag, not by a timer that would tick beside a loop that hangs: every beat is a
callback *of the loop*, and a beat that came later than ``lag_max`` is not passed on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable

BEAT_S = 2.0
"""While nothing runs, where no watchdog wants to hear more often: an idle daemon does not wake for more."""
BUSY_BEAT_S = 0.05
"""While tasks run: then the lag matters, and the time goes unnoticed."""
LAGS_KEPT = 3_000
"""One busy minute of beats: what the reported p99 is taken of."""


def notify(*lines: str) -> None:
    """Send ``KEY=value`` lines to ``NOTIFY_SOCKET``, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), address)
        except OSError:
            return  # systemd is restarting, or the variable was inherited by mistake: neither is ours to fail on


def watchdog_interval_s() -> float:
    """How often systemd wants to hear from this process, in seconds; 0 if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 / 2 if microseconds.isdigit() else 0.0


class Pulse:
    """Measures how late the loop is, and feeds the watchdog while it is not."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lag_max_s: float,
        feed: Callable[[], None],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.lags: deque[float] = deque(maxlen=LAGS_KEPT)
        self._loop = loop
        self.lag_max_s = lag_max_s
        self._feed = feed
        self._is_busy = is_busy
        self._feed_every_s = watchdog_interval_s()
        self._fed = time.monotonic()
        self._beat_at = 0.0
        self._schedule()

    def _schedule(self) -> None:
        beat_s = BUSY_BEAT_S if self._is_busy() else min(BEAT_S, self._feed_every_s or BEAT_S)
        self._beat_at = time.monotonic() + beat_s
        self._handle = self._loop.call_later(beat_s, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        lag = max(0.0, now - self._beat_at)
        self.lags.append(lag)
        if self._feed_every_s and now - self._fed >= self._feed_every_s and lag < self.lag_max_s:
            self._feed()
            self._fed = now
        self._schedule()

    def p99_s(self) -> float:
        """The 99th percentile of the last beats' lags, in seconds."""
        ordered = sorted(self.lags)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0

    def stop(self) -> None:
        self._handle.cancel()
