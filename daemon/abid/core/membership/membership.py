"""Who is alive, as one member sees it. Events and time in, effects out.

    membership = Membership(number, members, now_ns, draw, incarnation=…)
    effects = membership.tick(now_ns)                       # by wake_at, or every 100 ms
    effects = membership.on_message(sender, message, now_ns)

The shell performs the effects in order. ``now_ns`` is its monotonic time. An own loop that is late shows in ``wake_at``
having passed: all timeouts are on a *clock* that stands still for that time, since what the others said meanwhile has
not been read. So an overloaded or stopped member accuses nobody for its own silence (Lifeguard says why; measuring it
directly is ours).
"""

from __future__ import annotations

from collections.abc import Iterable

from abid.core.membership import probing, suspecting
from abid.core.membership.effects import Became, Effect, Send
from abid.core.membership.health import Health
from abid.core.membership.member import Member
from abid.core.membership.messages import NOBODY, Ack, Answer, Ask, Message, Probe, Rumour, State
from abid.core.membership.order import Draw, Order
from abid.core.membership.rumours import Rumours
from abid.core.membership.timers import NEVER, Due, Timers
from abid.core.membership.timings import Settings, transmits_max


class Membership:
    """``incarnation`` is to be higher than in any earlier life of this member, say its count of starts × 2³², so that
    what was said of an earlier life is outdated at once. It may be 0 where that is not known: then the first who
    believes us dead tells us, and we refute."""

    def __init__(
        self,
        number: int,
        members: Iterable[int],
        now_ns: int,
        draw: Draw,
        *,
        incarnation: int = 0,
        settings: Settings | None = None,
    ) -> None:
        self.number = number
        self.incarnation = incarnation
        self.settings = settings or Settings()
        self.draw = draw
        self.members: dict[int, Member] = {}
        """The others; strangers have no place here."""
        self.alive = 0
        """So many of them are."""
        self.dead: dict[int, None] = {}
        """In the order of their deaths."""
        self.gone = 0
        """So many left, or are dead beyond doubt."""
        self.order = Order(draw)
        self.rumours = Rumours()
        self.health = Health(self.settings.health_max)
        self.timers = Timers()
        self.rounds: dict[int, probing.Round] = {}
        """Probes without an answer yet, by whom they are for."""
        self.helping: dict[int, set[int]] = {}
        """Whom we probe for others → for whom."""
        self.has_left = False
        self.probes = 0
        """So many were sent; the asking for all counts from the last awakening."""
        self.now_ns = now_ns
        self.deaf_ns = 0
        """In all. ``clock`` is the time without it."""
        self.no_judgement_until = 0
        """On our clock: after a long sleep."""
        self.catch_up_until = 0
        """In the shell's time: we were late, and first what came in meanwhile is to be read. 0: we were not."""
        self._effects: list[Effect] = []
        self.timers.set((Due.PROBE, 0, 0), self.clock + draw(0, self.settings.probe_every_ns))
        self.timers.set((Due.REVISIT, 0, 0), self.clock + draw(0, self.settings.revisit_every_ns))
        self._configure(members)
        if incarnation:  # else it is what everybody takes for granted
            self._tell_of_ourselves(State.ALIVE)

    def __repr__(self) -> str:
        return f"<membership of {self.number}: {self.alive} of {len(self.members)} others alive, {self.health!r}>"

    @property
    def clock(self) -> int:
        return self.now_ns - self.deaf_ns

    @property
    def wake_at(self) -> int:
        """When the next tick is wanted, in the shell's time; it changes with every event. Never, when we have left."""
        if self.has_left:
            return NEVER
        return max(self.timers.next_at + self.deaf_ns, self.catch_up_until)

    @property
    def probe_at(self) -> int:
        """When the next probe is due, in the shell's time."""
        return self.timers.at((Due.PROBE, 0, 0)) + self.deaf_ns

    # What happens to it.

    def tick(self, now_ns: int, early_ns: int = 0) -> list[Effect]:
        """Time has passed. A probe that is due within ``early_ns`` begins now: nothing hangs on its moment."""
        self._at(now_ns)
        if now_ns < self.catch_up_until:
            return self._done()
        self.catch_up_until = 0
        while not self.has_left and (due := self.timers.take(self.clock)) is not None:
            what, member, helped = due
            match what:
                case Due.PROBE:
                    probing.probe_next(self)
                case Due.ASK:
                    probing.ask_others(self, self.rounds[member])
                case Due.SUSPECT:
                    probing.on_unanswered(self, self.rounds[member])
                case Due.SUSPICION:
                    suspecting.on_lasted(self, self.members[member])
                case Due.HELP:
                    probing.on_not_reached(self, member, helped)
                case Due.REVISIT:
                    probing.revisit(self)
        if early_ns and not self.has_left and self.probe_at <= now_ns + early_ns:
            probing.probe_next(self)
        return self._done()

    def on_message(self, sender: int, message: Message, now_ns: int) -> list[Effect]:
        """From a sender whose identity the connection has proved."""
        self._at(now_ns)
        member = self.members.get(sender)
        if self.has_left:
            pass
        elif member is None:
            self._on_stranger(sender, message)
        else:
            probing.on_word(self, member, message.incarnation)
            for rumour in message.rumours:
                suspecting.hear(self, rumour)
            self._respond(member, message)
        return self._done()

    def _respond(self, member: Member, message: Message) -> None:
        sender = member.number
        match message:
            case Probe():
                news = self.news(sender, heard=message.rumours, all_=message.asks_all)
                self.put(Send(sender, Ack(self.incarnation, news)))
            case Ask():
                probing.help_to_reach(self, sender, message.target)
            case Answer():
                probing.on_answer(self, sender, message)
            case Ack():
                return
        if member.state in (State.SUSPECT, State.DEAD) and not isinstance(message, Probe):
            # It speaks: with the probe it hears what is said of it. Not after an ack, which has answered a probe: one
            # that does not refute would be probed without end.
            probing.probe(self, member)

    def _on_stranger(self, sender: int, message: Message) -> None:
        """The agreed configuration reaches some before others. Its probe is answered, or it would suspect us for being
        behind, and we listen to what it says of ourselves; nothing else of it is believed."""
        for rumour in message.rumours:
            if rumour.member == self.number:
                suspecting.hear(self, rumour)
        if isinstance(message, Probe):
            self.put(Send(sender, Ack(self.incarnation)))

    def on_connected(self, number: int, now_ns: int) -> list[Effect]:
        """There is a connection. One that was dead hears at once that it is held for dead, and can refute."""
        self._at(now_ns)
        member = self.members.get(number)
        if member is not None and member.state != State.ALIVE and not self.has_left:
            probing.probe(self, member)
        return self._done()

    def on_broken(self, number: int, now_ns: int) -> list[Effect]:
        """Its connection ended without a goodbye. It is suspected at once, and others are asked at once. A connection
        that we ended ourselves, or that was idle and closed in order, is nobody's business: say nothing."""
        self._at(now_ns)
        member = self.members.get(number)
        if member is not None and not self.has_left:
            probing.on_broken(self, member)
        return self._done()

    def on_goodbye(self, number: int, now_ns: int) -> list[Effect]:
        """The last that it said was that it goes."""
        self._at(now_ns)
        member = self.members.get(number)
        if member is not None:
            suspecting.hear(self, Rumour(number, member.incarnation, State.LEFT))
        return self._done()

    def on_deaf(self, time_ns: int) -> None:
        """Nothing was read for so long, beyond what a late ``tick`` shows by itself: count nothing twice."""
        self.deaf_ns += time_ns
        if time_ns >= self.settings.suspect_after_ns:
            self._judge_nobody()

    def on_resumed(self, now_ns: int) -> list[Effect]:
        """The host was suspended: boot time went on while monotonic time stood still. The others may hold us for dead
        by now, and the connections with them are gone, which says nothing about them. Nobody is judged for a while."""
        self._at(now_ns)
        self._judge_nobody()
        return self._done()

    def configure(self, numbers: Iterable[int], now_ns: int) -> list[Effect]:
        """These are the members now, as agreed on; whether we are among them does not matter here."""
        self._at(now_ns)
        self._configure(numbers)
        return self._done()

    def leave(self, now_ns: int) -> list[Effect]:
        """We go: some of the others hear it from us and tell it on. Afterwards nothing is sent and nothing believed.
        The shell says goodbye on every connection besides."""
        self._at(now_ns)
        if not self.has_left:
            self._tell_of_ourselves(State.LEFT)
            for number in self.order.some(self.settings.helpers, self.is_alive):
                self.put(Send(number, Probe(self.incarnation, self.news(number))))
            self.has_left = True
        return self._done()

    # What the rules use.

    def put(self, effect: Effect) -> None:
        self._effects.append(effect)

    def is_alive(self, number: int) -> bool:
        return self.members[number].state == State.ALIVE

    @property
    def is_judging(self) -> bool:
        return self.clock >= self.no_judgement_until

    def news(
        self, receiver: int, about: int = NOBODY, heard: Iterable[Rumour] = (), *, all_: bool = False
    ) -> tuple[Rumour, ...]:
        """What to tell this member: first what we hold of itself, if not that it is alive, so that it can refute
        (Lifeguard, IV-C); what we hold of whom this is about; then what is to be told on, but for what it has just told
        us; and ``all_`` others who are not alive."""
        told, known = list[Rumour](), {rumour.member: rumour for rumour in heard}
        for number in (receiver, about):
            member = self.members.get(number)
            if member is not None:
                known[number] = member.belief()
                if member.state != State.ALIVE or number == about:
                    told.append(known[number])
        room = self.settings.rumours_max - len(told)
        told += self.rumours.take(room, transmits_max(len(self.members) + 1, self.settings), known)
        if all_:
            told += suspecting.everybody_not_alive(self, known=told)
        return tuple(told)

    @property
    def is_cut_off(self) -> bool:
        """About to call a suspect dead: of the others that are not gone we reach fewer than two in three. Perhaps they
        are well, and we are cut off. Two in three and not half, since some are missed later than others."""
        missed_too = len(self.members) - self.gone - self.alive - 1
        return self.alive < 2 * missed_too

    def become(self, member: Member, incarnation: int, state: State, *, is_doubted: bool = False) -> None:
        """Only `suspecting` calls this, which keeps the order of the states."""
        member.incarnation = incarnation
        before, was_gone = member.state, member.is_gone
        member.state, member.is_doubted = state, is_doubted
        self.gone += member.is_gone - was_gone
        if state == before:
            return
        self.alive += (state == State.ALIVE) - (before == State.ALIVE)
        if state == State.DEAD:
            self.dead[member.number] = None
        else:
            self.dead.pop(member.number, None)
        member.since_ns = self.now_ns
        self.put(Became(member.number, state))

    def refute(self, incarnation: int) -> None:
        """Somebody holds us for worse than alive in this incarnation: the next one is ours (paper, 4.2)."""
        self.incarnation = incarnation + 1
        self.health.worse()
        self._tell_of_ourselves(State.ALIVE)

    # What is its own.

    def _at(self, now_ns: int) -> None:
        """Every event begins here, and not only the tick: after a stop the loop may bring a broken connection first.

        The clock stops at the time for which we wanted to be woken, so even who is always late comes to its next timer;
        and who is late twice in a row catches up once.
        """
        late_ns = now_ns - self.wake_at
        self.now_ns = now_ns
        if late_ns > self.settings.late_min_ns:
            self.on_deaf(late_ns)
            if late_ns >= self.settings.probe_every_ns:
                self.health.worse()
            self.catch_up_until = 0 if self.catch_up_until else now_ns + self.settings.catch_up_ns

    def _done(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _tell_of_ourselves(self, state: State) -> None:
        self.rumours.add(Rumour(self.number, self.incarnation, state))

    def _judge_nobody(self) -> None:
        """What we waited for is void, and own suspicions begin again when judging does."""
        self.no_judgement_until = self.clock + self.settings.resume_grace_ns
        self.probes = 0
        self.health.worse()
        for number in list(self.rounds):
            probing.end(self, number)
        for member in self.members.values():
            suspecting.begin_again(self, member, self.no_judgement_until)

    def _configure(self, numbers: Iterable[int]) -> None:
        wanted = set(numbers) - {self.number}
        for number in sorted(self.members.keys() - wanted):
            self._remove(number)
        for number in sorted(wanted - self.members.keys()):
            self.members[number] = Member(number, self.now_ns)
            self.alive += 1
            self.order.add(number)

    def _remove(self, number: int) -> None:
        member = self.members.pop(number)
        self.alive -= member.state == State.ALIVE
        self.gone -= member.is_gone
        self.dead.pop(number, None)
        self.order.remove(number)
        self.rumours.forget(number)
        self.timers.drop((Due.SUSPICION, number, 0))
        probing.end(self, number)
        probing.forget_helping(self, number)
