"""How far a member trusts itself (Lifeguard, IV-A: the local health multiplier)."""

from __future__ import annotations


class Health:
    """``score`` 0 is well. Worse: own probes fail and those asked do not answer, others suspect us, our loop is late.
    Better: a probe is answered."""

    __slots__ = ("score", "score_max")

    def __init__(self, score_max: int) -> None:
        self.score = 0
        self.score_max = score_max

    def __repr__(self) -> str:
        return "<well>" if not self.score else f"<in doubt of itself: {self.score} of {self.score_max}>"

    def better(self) -> None:
        self.score = max(0, self.score - 1)

    def worse(self, by: int = 1) -> None:
        self.score = min(self.score_max, self.score + by)

    def stretched(self, time_ns: int) -> int:
        """An own timeout or interval, as long as it is to be now: (score + 1) times."""
        return time_ns * (self.score + 1)
