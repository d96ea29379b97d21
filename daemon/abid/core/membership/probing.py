"""Rules of asking: probe one, ask others about who does not answer, ask for others.

A round about one member:

    t = 0                 probe it
    ask_after (1 s)       no word: ask three others who are alive to probe it
    suspect_after (3 s)   no word, and none of them reached it: suspect it (paper, 4.1 and 4.2)

Any word from it, or that another reached it, ends the round. All times stretch with our own health.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abid.core.membership import suspecting
from abid.core.membership.effects import Dial, Send
from abid.core.membership.member import Member
from abid.core.membership.messages import Answer, Ask, Probe, Rumour, State
from abid.core.membership.timers import Due
from abid.core.membership.timings import is_revisited

if TYPE_CHECKING:
    from abid.core.membership.membership import Membership


class Round:
    """One member is probed. ``began`` is on our clock."""

    __slots__ = ("asked", "began", "member", "not_reached")

    def __init__(self, member: Member, began: int) -> None:
        self.member = member
        self.began = began
        self.asked: set[int] | None = None
        """None: not yet."""
        self.not_reached: set[int] = set()
        """Those of the asked who could not reach it."""

    def __repr__(self) -> str:
        asked = "nobody asked" if self.asked is None else f"{len(self.asked)} asked"
        return f"<probing {self.member.number}, {asked}, {len(self.not_reached)} did not reach it>"


def probe_next(m: Membership) -> None:
    """The next in order who is neither dead nor being probed. Suspects are probed: they must hear of it, and who probes
    one in vain is one more witness."""
    m.timers.set((Due.PROBE, 0, 0), m.clock + m.health.stretched(m.settings.probe_every_ns))
    for _ in range(len(m.members)):
        number = m.order.next()
        if number is None:
            return
        member = m.members[number]
        if member.state <= State.SUSPECT and number not in m.rounds:
            probe(m, member)
            return


def probe(m: Membership, member: Member) -> None:
    """Begins a round, if none is under way about this member."""
    number = member.number
    if number in m.rounds:
        return
    m.rounds[number] = Round(member, m.clock)
    m.timers.set((Due.ASK, number, 0), m.clock + m.health.stretched(m.settings.ask_after_ns))
    m.timers.set((Due.SUSPECT, number, 0), m.clock + m.health.stretched(m.settings.suspect_after_ns))
    asks_all = m.probes < m.settings.asks_all_first or m.probes % m.settings.asks_all_every == 0
    m.probes += 1
    m.put(Send(number, Probe(m.incarnation, m.news(number), asks_all)))


def end(m: Membership, number: int) -> None:
    """The round is over, or void."""
    if m.rounds.pop(number, None) is not None:
        m.timers.drop((Due.ASK, number, 0))
        m.timers.drop((Due.SUSPECT, number, 0))


def ask_others(m: Membership, round_: Round) -> None:
    """Those who are alive, by lot; fewer where there are fewer. Nobody about the dead, who were probed for their own
    sake."""
    target = round_.member.number
    m.timers.drop((Due.ASK, target, 0))
    if round_.member.state > State.SUSPECT:
        return
    helpers = m.order.some(m.settings.helpers, m.is_alive, excluded=(target,))
    round_.asked = set(helpers)
    if round_.member.suspicion is not None:
        round_.member.suspicion.asked |= round_.asked
    for helper in helpers:
        m.put(Send(helper, Ask(m.incarnation, target, m.news(helper, about=target))))


def on_word(m: Membership, member: Member, incarnation: int) -> None:
    """It spoke, and said in which incarnation."""
    number = member.number
    member.heard_ns = m.now_ns
    suspecting.hear(m, Rumour(number, incarnation, State.ALIVE))
    _is_there(m, member)
    for asker in sorted(m.helping.pop(number, ())):
        m.timers.drop((Due.HELP, number, asker))
        m.put(Send(asker, Answer(m.incarnation, number, True, m.news(asker, about=number))))


def _is_there(m: Membership, member: Member) -> None:
    member.heard_at = m.clock
    if member.number in m.rounds:
        end(m, member.number)
        m.health.better()


def on_answer(m: Membership, helper: int, answer: Answer) -> None:
    """One whom we asked reached it, or did not. A late answer is as true as one in time."""
    member = m.members.get(answer.target)
    if member is None:
        return
    if answer.reached:
        _is_there(m, member)
        suspecting.on_sign_of_life(m, member)
        return
    round_ = m.rounds.get(answer.target)
    if round_ is not None and round_.asked is not None and helper in round_.asked:
        round_.not_reached.add(helper)
    suspecting.confirm(m, member, {helper})


def on_unanswered(m: Membership, round_: Round) -> None:
    """The round ends without a word. If most of those asked kept silent as well, it may be us (Lifeguard, IV-A), and if
    there was nobody to ask we cannot know. Lifeguard counts each silent one; in a cluster that is cut in two that would
    slow everybody ninefold, just when there is much to find out."""
    member, asked = round_.member, round_.asked or set()
    end(m, member.number)
    if not m.is_judging or member.state > State.SUSPECT:
        return
    if 2 * len(round_.not_reached) <= len(asked):
        m.health.worse()
    suspecting.suspect(m, member, max(round_.began, member.heard_at), round_.not_reached)


def on_broken(m: Membership, member: Member) -> None:
    """Suspect it, and look for it at once. After a sleep of ours it is only probed."""
    if member.state > State.SUSPECT:
        return
    if m.is_judging:
        suspecting.suspect(m, member, m.clock, set())
        look_hard(m, member)
    else:
        probe(m, member)


def look_hard(m: Membership, member: Member) -> None:
    """A new round, and others are asked in the same moment: there is reason, or no time to wait. A round that is under
    way may be almost over; it is void."""
    end(m, member.number)
    probe(m, member)
    ask_others(m, m.rounds[member.number])


def revisit(m: Membership) -> None:
    """One of the dead, by lot, is looked for again."""
    m.timers.set((Due.REVISIT, 0, 0), m.clock + m.health.stretched(m.settings.revisit_every_ns))
    if m.dead and is_revisited(m.draw(1, m.alive + 1), len(m.dead), m.settings):
        m.put(Dial(list(m.dead)[m.draw(0, len(m.dead) - 1)]))


# For others.


def help_to_reach(m: Membership, asker: int, target: int) -> None:
    """Probe whom ``asker`` could not reach. About strangers, and when too much is asked, we keep silent."""
    if target not in m.members:
        return
    askers = m.helping.get(target)
    if askers is None:
        if len(m.helping) >= m.settings.helping_max:
            return
        askers = m.helping[target] = set()
        m.put(Send(target, Probe(m.incarnation, m.news(target))))
    askers.add(asker)
    m.timers.set((Due.HELP, target, asker), m.clock + m.settings.help_ns)


def on_not_reached(m: Membership, target: int, asker: int) -> None:
    askers = m.helping[target]
    askers.discard(asker)
    if not askers:
        del m.helping[target]
    m.put(Send(asker, Answer(m.incarnation, target, False, m.news(asker, about=target))))


def forget_helping(m: Membership, number: int) -> None:
    """It is no member any more: neither one to look for nor one to answer."""
    for asker in m.helping.pop(number, ()):
        m.timers.drop((Due.HELP, number, asker))
    for target, askers in list(m.helping.items()):
        if number in askers:
            askers.discard(number)
            m.timers.drop((Due.HELP, target, number))
            if not askers:
                del m.helping[target]
