"""Every time and number of the membership rule, and the formulas over them: no state, so that tables can test them."""

from __future__ import annotations

import math

import msgspec

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in nanoseconds. The defaults suit hosts in one building; tests and simulations use the same."""

    probe_every_ns: int = SECOND
    """One other is probed in so much time; the load of a host does not depend on how many there are (paper, 3)."""
    ask_after_ns: int = SECOND
    """Without an answer for so long, others are asked. Far above any round trip, so a lost packet that TCP sends again
    (200 ms, 400 ms) costs no asking."""
    help_ns: int = SECOND
    """Who was asked answers within this time, so that the answer is there before the asker's ``suspect_after_ns``."""
    suspect_after_ns: int = 3 * SECOND
    """Silence of the probed until it is suspected."""
    suspicion_min_ns: int = 7 * SECOND
    """A suspicion that enough others confirm lasts so long: dead at 10 s of silence."""
    suspicion_max_ns: int = 14 * SECOND
    """One that nobody confirms: who gets no answer from anybody is likely to be the one at fault."""
    last_look_ns: int = 3 * SECOND
    """So long before its end who is suspected is looked for once more, by others as well, asked at once: long enough
    for all of them. One lost word then kills nobody who has come back meanwhile."""
    helpers: int = 3
    """So many others are asked (the paper's k); with 1 % of lost words all three fail us once in a million."""
    confirmations: int = 3
    """So many others who could not reach it either bring a suspicion down to its minimum (Lifeguard's K)."""
    health_max: int = 8
    """Own times stretch up to nine times (Lifeguard's S)."""
    rumours_max: int = 32
    """In one message: under 600 bytes. Two messages a second bring the end of a thousand rumours in half a minute."""
    transmits_factor: int = 4
    """Each rumour is sent this × log10(members + 1) times (paper, 4.1, λ log n): reaches all but one in n⁴."""
    helping_max: int = 128
    """Asks that are under way for others; more are left unanswered. A broken switch makes many ask at once."""
    late_min_ns: int = 200 * MILLISECOND
    """Being woken later than this shows that we were deaf; less is the ordinary unevenness of a busy loop."""
    catch_up_ns: int = 100 * MILLISECOND
    """After being late, what came in meanwhile is read before anything else is done: a few turns of the loop."""
    resume_grace_ns: int = 10 * SECOND
    """After a long sleep nobody is judged for so long: a network interface needs seconds to come back."""
    revisit_every_ns: int = 10 * SECOND
    """The dead are looked for again so often; nothing else would heal a partition."""
    revisits: int = 10
    """By so many members together each time, for each of the dead: one dial a second, in a cluster of any size."""
    asks_all_first: int = 3
    """So many first probes of a life, or after a sleep, ask for everybody's state: one may meet a newcomer."""
    asks_all_every: int = 30
    """And each so-many-th later: what a rumour missed is repaired within half a minute (anti-entropy)."""


def suspicion_ns(confirmed: int, wanted: int, settings: Settings) -> int:
    """How long a suspicion lasts that ``confirmed`` of the ``wanted`` others share (Lifeguard, IV-B):

    ``max(min, max − (max − min) · log(confirmed + 1) / log(wanted + 1))``. Nobody there to confirm: the minimum.
    """
    shortest, longest = settings.suspicion_min_ns, settings.suspicion_max_ns
    if confirmed >= wanted:
        return shortest
    share = math.log(confirmed + 1) / math.log(wanted + 1)
    return max(shortest, longest - round((longest - shortest) * share))


def transmits_max(members: int, settings: Settings) -> int:
    """How often one member sends a rumour, at least once: ⌈factor · log10(members + 1)⌉ (paper, 4.1)."""
    return max(1, math.ceil(settings.transmits_factor * math.log10(members + 1)))


def is_revisited(lot: int, dead: int, settings: Settings) -> bool:
    """Whether the one of the living who drew ``lot`` (1 … number of the living) looks for one of the dead."""
    return lot <= settings.revisits * dead
