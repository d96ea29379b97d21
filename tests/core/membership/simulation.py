"""Hosts in one process with a virtual clock: their words take time and get lost, hosts die, stop, sleep, are cut off.

The same seed gives the same run. The network is worse than the real one: a lost word is lost, where TCP would send it
again. What is counted: words, bytes, who was held for dead when, and whether it was.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from abid.core.membership.effects import Became, Dial, Effect, Send
from abid.core.membership.membership import Membership
from abid.core.membership.messages import Ask, Message, State, decode, encode
from abid.core.membership.timings import MILLISECOND, SECOND, Settings

DELAY_NS = (MILLISECOND // 10, 2 * MILLISECOND)
DEAD_AFTER_NS = 10 * SECOND
"""Of silence: who has been silent for so long is rightly held for dead. Where words are lost, the silence may have
begun with a lost one, a whole round (3 s) before the trouble did."""
LAST_LOOK_NS = Settings().last_look_ns + SECOND
LEFT_OVER_NS = Settings().suspect_after_ns + Settings().suspicion_max_ns
ENCODED_EVERY = 16
"""Of so many words one goes through its form on the wire and back."""
NEVER = 1 << 62


class Host:
    def __init__(self, number: int) -> None:
        self.number = number
        self.membership: Membership
        self.life = 0
        self.is_up = False
        self.stopped_at: int | None = None
        self.waiting: list[Callable[[], list[Effect]]] = []
        """What came in while it was stopped."""
        self.slept_ns = 0
        self.is_asleep = False
        self.trouble_ended = -NEVER
        self.wakes_at = NEVER
        self.connected: set[int] = set()


@dataclass
class Tally:
    words: int = 0
    asks: int = 0
    encoded: int = 0
    encoded_bytes: int = 0
    false_suspicions: set[tuple[int, int]] = field(default_factory=set)
    """(who, its incarnation), of those who were well when they were first suspected."""
    suspicions: set[tuple[int, int]] = field(default_factory=set)
    deaths: dict[tuple[int, int], int] = field(default_factory=dict)
    """(who, its incarnation) → when it was first held for dead."""
    false_deaths: list[tuple[int, int, int]] = field(default_factory=list)
    """When, by whom first, who, of those who were well."""
    held_dead: dict[int, dict[int, int]] = field(default_factory=dict)
    """Who → by whom → since when; only who is held for it now."""
    asked: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    """(by whom, about whom) → who was asked."""
    changes: list[tuple[int, int, int, State]] = field(default_factory=list)
    """When, who sees it, of whom, which state."""


class World:
    def __init__(self, count: int, seed: int, *, loss: float = 0.0, settings: Settings | None = None) -> None:
        self.random = random.Random(seed)
        self.settings = settings or Settings()
        self.loss = loss
        self.dead_after_ns = DEAD_AFTER_NS - (self.settings.suspect_after_ns if loss else 0)
        self.now = 0
        self.tally = Tally()
        self.side: dict[int, int] = {}
        """On which side of a partition; 0 where nothing is said."""
        self.one_way: set[tuple[int, int]] = set()
        self.cut_at: int | None = None
        """Since when somebody cannot hear somebody."""
        self.cut_ended = -NEVER
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self.hosts = {number: Host(number) for number in range(1, count + 1)}
        for host in self.hosts.values():
            self.start(host.number)
            host.trouble_ended = -NEVER

    # What can be done to it; each now, or ``after`` so many seconds.

    def at(self, second: float, action: Callable[..., None], *arguments: object) -> None:
        self._push(round(second * SECOND), lambda: action(*arguments))

    def start(self, number: int) -> None:
        """Its first life is taken for granted by the others, as in a cluster that has run for long."""
        host = self.hosts[number]
        incarnation = host.life << 32
        host.life += 1
        host.is_up, host.stopped_at = True, None
        host.trouble_ended = self.now
        host.slept_ns = 0
        draw = random.Random(self.random.getrandbits(64)).randint
        host.membership = Membership(
            number, self.hosts, self.now, draw, incarnation=incarnation, settings=self.settings
        )
        self._schedule(host)

    def start_again(self, number: int) -> None:
        """If it is not up."""
        if not self.hosts[number].is_up:
            self.start(number)

    def kill(self, number: int) -> None:
        """Its kernel closes its connections."""
        host = self.hosts[number]
        self.power_off(number)
        for other in sorted(host.connected):
            self.hosts[other].connected.discard(number)
            self._push(self.now + self._delay(), lambda to=other: self._break(to, number))
        host.connected.clear()

    def power_off(self, number: int) -> None:
        """Without a closing packet."""
        host = self.hosts[number]
        host.is_up, host.is_asleep, host.wakes_at, host.waiting = False, False, NEVER, []

    def stop(self, number: int) -> None:
        """SIGSTOP: what comes in waits in the kernel."""
        host = self.hosts[number]
        if host.is_up and host.stopped_at is None:
            host.stopped_at = self.now

    def cont(self, number: int) -> None:
        host = self.hosts[number]
        if not host.is_up or host.stopped_at is None or host.is_asleep:
            return
        host.trouble_ended = self.now
        host.stopped_at = None
        if self.random.random() < 0.5:  # a loop may bring its timers before what came in, or after it
            self._tick(host)
        waiting, host.waiting = host.waiting, []
        for event in waiting:
            self._perform(host, event())
        self._tick(host)

    def sleep(self, number: int, seconds: int) -> None:
        """The host is suspended: its monotonic time stands still, its connections are gone when it wakes."""
        host = self.hosts[number]
        if not host.is_up or host.stopped_at is not None:
            return
        self.stop(number)
        host.is_asleep = True
        life = host.life

        def wake() -> None:
            if not host.is_up or host.life != life:
                return
            host.slept_ns += seconds * SECOND
            host.trouble_ended = self.now
            host.stopped_at, host.waiting, host.is_asleep = None, [], False
            host.wakes_at = NEVER
            self._perform(host, host.membership.on_resumed(self._time(host)))
            for other in sorted(host.connected):
                self._break(number, other)
            host.connected.clear()

        self._push(self.now + seconds * SECOND, wake)

    def partition(self, numbers: Iterable[int]) -> None:
        self.side = dict.fromkeys(numbers, 1)
        self.cut_at = self.now

    def cut_one_way(self, pairs: Iterable[tuple[int, int]]) -> None:
        """No word comes from the first to the second of each."""
        self.one_way |= set(pairs)
        self.cut_at = self.now

    def heal(self) -> None:
        self.side, self.one_way = {}, set()
        if self.cut_at is not None:
            self.cut_at, self.cut_ended = None, self.now

    def leave(self, number: int) -> None:
        host = self.hosts[number]
        if not host.is_up or host.stopped_at is not None:
            return
        self._perform(host, host.membership.leave(self._time(host)))
        for other in sorted(host.connected):
            self._push(self.now + self._delay(), lambda to=other: self._goodbye(to, number))
            self.hosts[other].connected.discard(number)
        host.connected.clear()
        self.power_off(number)

    # How it goes on.

    def run(self, until_s: float) -> None:
        end = round(until_s * SECOND)
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def is_reachable(self, sender: int, receiver: int) -> bool:
        same_side = self.side.get(sender, 0) == self.side.get(receiver, 0)
        return same_side and (sender, receiver) not in self.one_way

    def _push(self, at: int, action: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at, self._serial, action))

    def _delay(self) -> int:
        return self.random.randint(*DELAY_NS)

    def _time(self, host: Host) -> int:
        return self.now - host.slept_ns

    def _schedule(self, host: Host) -> None:
        wakes_at = max(self.now, host.membership.wake_at + host.slept_ns)
        if wakes_at < host.wakes_at:
            host.wakes_at = wakes_at
            self._push(wakes_at, lambda: self._wake(host, wakes_at))

    def _wake(self, host: Host, wakes_at: int) -> None:
        if host.wakes_at == wakes_at and host.is_up:  # else it is outdated
            host.wakes_at = NEVER
            if host.stopped_at is None:
                self._tick(host)

    def _tick(self, host: Host) -> None:
        self._perform(host, host.membership.tick(self._time(host)))

    def _event(self, number: int, event: Callable[[Host], list[Effect]]) -> None:
        host = self.hosts[number]
        if not host.is_up:
            return
        if host.stopped_at is not None:
            host.waiting.append(lambda: event(host))
        else:
            self._perform(host, event(host))

    def _break(self, to: int, broken: int) -> None:
        self._event(to, lambda host: host.membership.on_broken(broken, self._time(host)))

    def _goodbye(self, to: int, gone: int) -> None:
        self._event(to, lambda host: host.membership.on_goodbye(gone, self._time(host)))

    def _perform(self, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(host, effect.receiver, effect.message)
                case Became():
                    self._note(host, effect)
                case Dial():
                    self._dial(host, effect.member)
        self._schedule(host)

    def _send(self, host: Host, receiver: int, message: Message) -> None:
        tally = self.tally
        tally.words += 1
        if isinstance(message, Ask):
            tally.asks += 1
            tally.asked.setdefault((host.number, message.target), set()).add(receiver)
        if tally.words % ENCODED_EVERY == 0:
            encoded = encode(message)
            message = decode(encoded)
            tally.encoded += 1
            tally.encoded_bytes += len(encoded)
        if (self.loss and self.random.random() < self.loss) or not self.is_reachable(host.number, receiver):
            return
        self._push(self.now + self._delay(), lambda: self._arrive(host.number, receiver, message))

    def _arrive(self, sender: int, receiver: int, message: Message) -> None:
        host = self.hosts[receiver]
        if host.is_up:
            host.connected.add(sender)
            if self.hosts[sender].is_up:
                self.hosts[sender].connected.add(receiver)
            self._event(receiver, lambda host: host.membership.on_message(sender, message, self._time(host)))

    def _dial(self, host: Host, member: int) -> None:
        both = self.is_reachable(host.number, member) and self.is_reachable(member, host.number)
        if both and self.hosts[member].is_up:
            for one, other in ((host.number, member), (member, host.number)):
                self._push(self.now + self._delay(), lambda one=one, other=other: self._connect(one, other))

    def _connect(self, number: int, other: int) -> None:
        self._event(number, lambda host: host.membership.on_connected(other, self._time(host)))

    # What is counted.

    def is_well(self, number: int) -> bool:
        """It is up and can be heard, and any trouble has been over for the time of a last look. Who has just stopped
        is well for 10 s, unless a suspicion may be left over from a trouble before."""
        host = self.hosts[number]
        if not host.is_up or self.cut_at is not None:
            return False
        quiet_since = max(host.trouble_ended, self.cut_ended)
        if host.stopped_at is None:
            return self.now - quiet_since >= LAST_LOOK_NS
        return self.now - host.stopped_at < self.dead_after_ns and host.stopped_at - quiet_since > LEFT_OVER_NS

    def _note(self, host: Host, effect: Became) -> None:
        self.tally.changes.append((self.now, host.number, effect.member, effect.state))
        life = effect.member, host.membership.members[effect.member].incarnation
        is_well = self.is_well(effect.member)
        holders = self.tally.held_dead.setdefault(effect.member, {})
        if effect.state == State.DEAD:
            holders[host.number] = self.now
        else:
            holders.pop(host.number, None)
        if effect.state == State.DEAD and life not in self.tally.deaths:
            self.tally.deaths[life] = self.now
            if is_well:
                self.tally.false_deaths.append((self.now, host.number, effect.member))
        elif effect.state == State.SUSPECT and life not in self.tally.suspicions:
            self.tally.suspicions.add(life)
            if is_well and self.hosts[effect.member].stopped_at is None:
                self.tally.false_suspicions.add(life)

    def states(self, of: int) -> dict[int, State]:
        """What everybody who is up holds of this one."""
        return {
            number: host.membership.members[of].state
            for number, host in self.hosts.items()
            if host.is_up and number != of
        }

    def times_to_detect(self, number: int, since: int) -> tuple[int | None, int | None]:
        """Until the first, and until everybody who is up, held it for dead."""
        held = self.tally.held_dead.get(number, {})
        up = [who for who, host in self.hosts.items() if host.is_up and who != number]
        times = [held[who] - since for who in up if who in held]
        return min(times, default=None), max(times) if times and len(times) == len(up) else None
