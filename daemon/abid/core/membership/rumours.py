"""What is to be told on: each rumour so many times, the least told first (paper, 4.1).

There is one rumour of a member at most: what is outdated is told no more. So what waits here is bounded by the number
of members.
"""

from __future__ import annotations

from collections.abc import Mapping

from abid.core.membership.messages import Rumour

NOTHING: Mapping[int, Rumour] = {}


class Rumours:
    __slots__ = ("_levels", "_told")

    def __init__(self) -> None:
        self._levels: list[dict[int, Rumour]] = [{}]
        """By how often they were told; in each, by whom they are of, the newest last."""
        self._told: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._told)

    def add(self, rumour: Rumour) -> None:
        """It is news: nothing else of this member is told any more."""
        self.forget(rumour.member)
        self._put(rumour, 0)

    def forget(self, member: int) -> None:
        told = self._told.pop(member, None)
        if told is not None:
            del self._levels[told][member]

    def take(self, count_max: int, transmits_max: int, known: Mapping[int, Rumour] = NOTHING) -> list[Rumour]:
        """The next to be told, which counts them as told once more. Least told first, of those the newest: an old one
        has been told by others meanwhile. ``known``: what the receiver knows, by whom it is of."""
        if not self._told:
            return []
        taken: list[tuple[Rumour, int]] = []
        for told, level in enumerate(self._levels):
            for member in reversed(level):
                if len(taken) == count_max:
                    break
                rumour = level[member]
                if member not in known or rumour.differs_from(known[member]):
                    taken.append((rumour, told))
        for rumour, told in reversed(taken):
            self.forget(rumour.member)
            if told + 1 < transmits_max:
                self._put(rumour, told + 1)
        return [rumour for rumour, _ in taken]

    def _put(self, rumour: Rumour, told: int) -> None:
        if told == len(self._levels):
            self._levels.append({})
        self._levels[told][rumour.member] = rumour
        self._told[rumour.member] = told
