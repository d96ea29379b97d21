"""A member as we see it, and the state machine of it.

    from      to        because
    alive     suspect   no answer to us, nor to those we asked; its connection broke; or a rumour
    suspect   dead      the suspicion lasted long enough; or a rumour
    alive     dead      a rumour
    any       left      its goodbye; or a rumour
    any       alive     its own word, or a rumour, of a higher incarnation: only itself can refute
    any       suspect   a rumour of a higher incarnation: it was seen alive after what we know

All of it is one order: of (incarnation, state) the higher holds, whatever came first (paper, 4.2; there the dead never
come back). So members that heard the same agree, in whatever order they heard it.
"""

from __future__ import annotations

from abid.core.membership.messages import NOBODY, Rumour, State


class Suspicion:
    """Times are on our clock, which stands still while we are deaf."""

    __slots__ = (
        "accuser", "asked", "began", "confirmers", "is_looked_after", "is_own", "silent_since", "was_cut_off",
    )  # fmt: skip

    def __init__(self, began: int, accuser: int) -> None:
        self.began = began
        self.silent_since = began
        """As an own suspicion: since when we have waited for a word."""
        self.accuser = accuser
        """Whom we have it from; we ourselves in an own one."""
        self.is_own = False
        """We, and those we asked, could not reach it: only then may we call it dead."""
        self.is_looked_after = False
        """The last look before the end has begun."""
        self.was_cut_off = False
        """We were when it began: a partition that heals before the end leaves no time for an answer."""
        self.confirmers: set[int] = set()
        """Others who could not reach it either."""
        self.asked: set[int] = set()
        """Whom we asked to reach it."""

    @property
    def is_unanswered(self) -> bool:
        """At least half of those whom we asked did not even say that they could not reach it."""
        return bool(self.asked) and 2 * len(self.asked & self.confirmers) <= len(self.asked)

    def __repr__(self) -> str:
        kind = "own" if self.is_own else f"heard of {self.accuser}"
        return f"<suspicion, {kind}, confirmed by {len(self.confirmers)}>"


class Member:
    """``since_ns`` and ``heard_ns`` are the shell's time, for people; ``heard_at`` is our clock's."""

    __slots__ = ("heard_at", "heard_ns", "incarnation", "is_doubted", "number", "since_ns", "state", "suspicion")

    def __init__(self, number: int, now_ns: int) -> None:
        self.number = number
        self.state = State.ALIVE
        """Until there is reason to doubt it."""
        self.incarnation = 0
        self.since_ns = now_ns
        """It has been in this state."""
        self.heard_ns: int | None = None
        """The last word that came from itself; None: none yet."""
        self.heard_at = 0
        """The last sign of life, from itself or from one who reached it for us."""
        self.suspicion: Suspicion | None = None
        """While it is suspect."""
        self.is_doubted = False
        """We called it dead, and perhaps it was us who were cut off."""

    def __repr__(self) -> str:
        return f"<member {self.number}: {self.state.name.lower()} in incarnation {self.incarnation}>"

    def is_older_than(self, rumour: Rumour) -> bool:
        """The rumour says something that we do not know yet."""
        return (self.incarnation, self.state) < (rumour.incarnation, rumour.state)

    @property
    def is_gone(self) -> bool:
        """It left, or is dead beyond doubt."""
        return self.state == State.LEFT or (self.state == State.DEAD and not self.is_doubted)

    def belief(self) -> Rumour:
        """What we hold of it, as we say it to others: of a death that we doubt, that we suspect it."""
        accuser = self.suspicion.accuser if self.suspicion is not None else NOBODY
        return Rumour(self.number, self.incarnation, State.SUSPECT if self.is_doubted else self.state, accuser)
