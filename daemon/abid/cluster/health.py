"""Who is alive: the rules of membership with a clock, connections and this host's own sleep.

A host that was suspended hears nobody and has nobody to blame. The kernel's boot time goes on while monotonic time
stands still, so a gap that opens between the two is a sleep, however short.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

from abid.cluster.peer import Peer
from abid.core.membership import messages
from abid.core.membership.effects import Became, Dial, Effect, Send
from abid.core.membership.membership import Membership
from abid.core.membership.messages import State

log = logging.getLogger(__name__)

SLEPT_NS: Final = 1_000_000_000
"""A gap of this size between the two clocks is a sleep; drifting apart by reading one after the other is far less."""
ROUNDED_S: Final = 0.002
"""A loop's timers go by whole milliseconds, of a time that it looked up before this turn. Who is woken sooner than it
wanted finds nothing to do, and sleeps for nothing again and again."""
RIDE_S: Final = 0.11
"""A probe begins so much sooner or later than it is due, if something wakes this host within that time anyway: half of
the time between two heartbeats, each of which does."""
STARTS_FACTOR: Final = 1 << 32
"""What an earlier life of this host said of itself is outdated at once."""


class Health:
    """``on_change`` is called after somebody's state changed; ``on_woken`` when this host has slept."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        members: Iterable[int],
        started: int,
        send: Callable[[int, bytes], object],
        dial: Callable[[int], object],
        on_change: Callable[[], None],
        on_woken: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._dial = dial
        self._on_change = on_change
        self._on_woken = on_woken
        lots = random.SystemRandom()
        self.rules = Membership(number, members, time.monotonic_ns(), lots.randint, incarnation=started * STARTS_FACTOR)
        self._since: dict[int, float] = {}
        self._slept_ns = _slept_ns()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._perform([])

    def close(self) -> None:
        """Say that we go, and be silent."""
        self._perform(self.rules.leave(time.monotonic_ns()))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def state_of(self, number: int) -> str:
        """alive, suspect, dead or left; of ourselves, alive."""
        member = self.rules.members.get(number)
        return State.ALIVE.name.lower() if member is None else member.state.name.lower()

    def is_alive(self, number: int) -> bool:
        """Not held for dead; a suspect may still be heard."""
        member = self.rules.members.get(number)
        return member is None or member.state in (State.ALIVE, State.SUSPECT)

    def was_there(self, number: int, within_s: float) -> bool:
        """Since this daemon started somebody has told us of it, and it is there, or was so lately."""
        member = self.rules.members.get(number)
        if member is None or not member.incarnation:
            return False
        is_there = member.state in (State.ALIVE, State.SUSPECT)
        return is_there or time.monotonic_ns() - member.since_ns < within_s * 1e9

    def configure(self, numbers: Iterable[int]) -> None:
        self._perform(self.rules.configure(numbers, time.monotonic_ns()))

    def on_message(self, sender: int, payload: bytes) -> None:
        """Raises ProtocolError."""
        self._perform(self.rules.on_message(sender, messages.decode(payload), time.monotonic_ns()))

    def on_connected(self, number: int) -> None:
        self._perform(self.rules.on_connected(number, time.monotonic_ns()))

    def on_closed(self, number: int, peer: Peer, orderly: bool) -> None:
        now = time.monotonic_ns()
        self._perform(self.rules.on_goodbye(number, now) if orderly else self.rules.on_broken(number, now))

    def ride(self) -> None:
        """The loop is awake: begin what would wake it soon."""
        if self._timer is not None and self.rules.probe_at - time.monotonic_ns() < RIDE_S * 1e9:
            self._tick(round(RIDE_S * 1e9))

    def _tick(self, early_ns: int = 0) -> None:
        before, self._slept_ns = self._slept_ns, _slept_ns()
        slept = self._slept_ns - before
        now = time.monotonic_ns()
        if slept > SLEPT_NS:
            log.warning("this host was suspended for %.1f s", slept / 1e9)
            self._on_woken()
            self._perform(self.rules.on_resumed(now))
        self._perform(self.rules.tick(now, early_ns))

    def _perform(self, effects: list[Effect]) -> None:
        changed = False
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect.receiver, messages.encode(effect.message))
                case Dial():
                    self._dial(effect.member)
                case Became():
                    changed = True
                    what = "has said goodbye" if effect.state == State.LEFT else f"is {effect.state.name.lower()}"
                    log.info("member %d %s", effect.member, what)
        if self._timer is not None:
            self._timer.cancel()
        wake_s = max(0.0, (self.rules.wake_at - time.monotonic_ns()) / 1e9) + ROUNDED_S
        if self.rules.wake_at == self.rules.probe_at:
            wake_s += RIDE_S
        self._timer = self._loop.call_later(wake_s, self._tick)
        if changed:
            self._on_change()


def _slept_ns() -> int:
    """How long this host was suspended since it booted. A process that is stopped between the two clocks asks anew."""
    while True:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        booted = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if time.clock_gettime_ns(time.CLOCK_MONOTONIC) - before < SLEPT_NS // 2:
            return booted - before
