"""Rules of believing: what holds of a member, how long a suspicion lasts, who may call it dead.

An own suspicion, in which we and those we asked could not reach the member, lasts 7 to 14 s, less the more others
confirm it (Lifeguard, IV-B): those we asked who said that they could not reach it, and whoever else suspects it at
first hand. Before its end it is looked for once more. A suspicion by hearsay never ends in a death: when it has lasted
14 s and nobody has decided, we look for ourselves. So confirmations matter to few, and are not told on, as they are in
the paper: those who were asked confirm sooner.

Who is perhaps cut off itself holds the rest for dead when their time is over, as anybody does, but tells others only
that it suspects them: who reaches fewer than two in three of the others, and whom half of those it asked did not
answer. The one shows when much is missed already, the other before that. The papers do not ask; when a partition
healed, its smaller side would call the greater one dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abid.core.membership import probing
from abid.core.membership.member import Member, Suspicion
from abid.core.membership.messages import INCARNATION_MAX, RUMOURS_ACCEPTED_MAX, Rumour, State
from abid.core.membership.timers import Due
from abid.core.membership.timings import suspicion_ns

if TYPE_CHECKING:
    from abid.core.membership.membership import Membership


def hear(m: Membership, rumour: Rumour) -> None:
    """What is news holds, and is told on."""
    member = m.members.get(rumour.member)
    if member is None:
        if rumour.member == m.number:
            _hear_of_ourselves(m, rumour)
    elif member.is_older_than(rumour):
        _believe(m, member, rumour)
    elif rumour.state == member.state == State.SUSPECT and rumour.incarnation == member.incarnation:
        confirm(m, member, {rumour.accuser})
    elif member.is_doubted and rumour.state == State.DEAD and rumour.incarnation == member.incarnation:
        m.become(member, member.incarnation, State.DEAD)  # beyond doubt
        m.rumours.add(rumour)


def _hear_of_ourselves(m: Membership, rumour: Rumour) -> None:
    """We are alive. A higher incarnation than ours is from an earlier life."""
    is_accused = rumour.state != State.ALIVE and rumour.incarnation >= m.incarnation
    if (is_accused or rumour.incarnation > m.incarnation) and rumour.incarnation < INCARNATION_MAX:
        m.refute(rumour.incarnation)


def _believe(m: Membership, member: Member, rumour: Rumour, *, is_doubted: bool = False) -> None:
    m.timers.drop((Due.SUSPICION, member.number, 0))
    member.suspicion = None
    m.become(member, rumour.incarnation, rumour.state, is_doubted=is_doubted)
    m.rumours.add(member.belief() if is_doubted else rumour)
    if rumour.state == State.SUSPECT:
        member.suspicion = Suspicion(m.clock, rumour.accuser)
        _set_timer(m, member, member.suspicion)
    else:
        probing.end(m, member.number)  # what it did not answer is of before


def suspect(m: Membership, member: Member, silent_since: int, not_reached: set[int]) -> None:
    """We could not reach it, at first hand; nor could ``not_reached``. It is suspect already, or becomes so."""
    if member.state == State.ALIVE:
        _believe(m, member, Rumour(member.number, member.incarnation, State.SUSPECT, m.number))
    suspicion = member.suspicion
    assert suspicion is not None, "who is suspect has a suspicion, and who is dead is not probed"
    if not suspicion.is_own:
        not_reached = not_reached | {suspicion.accuser}
        suspicion.is_own, suspicion.accuser = True, m.number
        suspicion.began, suspicion.silent_since = m.clock, silent_since
        _set_timer(m, member, suspicion)
    confirm(m, member, not_reached)


def confirm(m: Membership, member: Member, others: set[int]) -> None:
    """They could not reach it either: the end of an own suspicion comes nearer."""
    suspicion = member.suspicion
    if suspicion is None or not suspicion.is_own:
        return
    before = len(suspicion.confirmers)
    suspicion.confirmers |= (others & m.members.keys()) - {member.number}
    if len(suspicion.confirmers) > before:
        _set_timer(m, member, suspicion)


def on_sign_of_life(m: Membership, member: Member) -> None:
    """Another reached it, who tells it what is said of it. What we had against it is void."""
    if member.suspicion is not None and member.suspicion.is_own:
        _begin(m, member, member.suspicion, m.clock)


def on_lasted(m: Membership, member: Member) -> None:
    """The suspicion has lasted as long as it may."""
    suspicion = member.suspicion
    assert suspicion is not None, "its timer goes with it"
    if not m.is_judging:
        _begin(m, member, suspicion, m.no_judgement_until)
    elif not suspicion.is_own:
        _begin(m, member, suspicion, m.clock)
        probing.probe(m, member)
    elif not suspicion.is_looked_after:
        suspicion.is_looked_after, suspicion.was_cut_off = True, m.is_cut_off
        _set_timer(m, member, suspicion)
        probing.look_hard(m, member)
    elif member.heard_at > suspicion.began:
        # It speaks, and has not refuted yet: perhaps it has not heard of the suspicion, so it hears of it now.
        _begin(m, member, suspicion, member.heard_at)
        probing.probe(m, member)
    else:
        death = Rumour(member.number, member.incarnation, State.DEAD)
        _believe(m, member, death, is_doubted=suspicion.was_cut_off or suspicion.is_unanswered or m.is_cut_off)


def begin_again(m: Membership, member: Member, clock: int) -> None:
    """A suspicion, if there is one, counts from then on."""
    if member.suspicion is not None:
        _begin(m, member, member.suspicion, clock)


def everybody_not_alive(m: Membership, known: list[Rumour]) -> list[Rumour]:
    """For one who may have missed much; as many as a message holds."""
    named = {rumour.member for rumour in known}
    others = (other for other in m.members.values() if other.state != State.ALIVE and other.number not in named)
    return [other.belief() for other, _ in zip(others, range(RUMOURS_ACCEPTED_MAX - len(known)), strict=False)]


def _begin(m: Membership, member: Member, suspicion: Suspicion, clock: int) -> None:
    suspicion.began = suspicion.silent_since = clock
    suspicion.is_looked_after = False
    suspicion.confirmers.clear()
    suspicion.asked.clear()
    _set_timer(m, member, suspicion)


def _set_timer(m: Membership, member: Member, suspicion: Suspicion) -> None:
    """For the last look, and then for the end. After a broken connection the silence has only begun: what is missing of
    ``suspect_after`` comes on top. So nobody is dead before 10 s of silence."""
    settings = m.settings
    if suspicion.is_own:
        others = m.alive  # without the suspect, which is not alive, and without us
        wanted = min(settings.confirmations, others)
        lasts = suspicion_ns(len(suspicion.confirmers), wanted, settings)
        begins = max(suspicion.began, suspicion.silent_since + settings.suspect_after_ns)
        if not suspicion.is_looked_after:
            lasts -= settings.last_look_ns
    else:
        lasts, begins = settings.suspicion_max_ns, suspicion.began
    # A confirmation may end it at once. A time that has passed already would read as if we had overslept it.
    m.timers.set((Due.SUSPICION, member.number, 0), max(m.clock, begins + lasts))
