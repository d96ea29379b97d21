"""Whom to probe next: everybody once in a round, each round in another order (paper, 4.3).

So the time until we probe a member is bounded by two rounds, and not only short on average. A newcomer enters the
running round at a place by lot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

Draw = Callable[[int, int], int]
"""A lot between two numbers, both included; every member's own."""


class Order:
    __slots__ = ("_draw", "_place", "members")

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._place = 0
        self.members: list[int] = []

    def add(self, member: int) -> None:
        self.members.append(member)
        if self._place == len(self.members) - 1:  # no round is running: the next one is shuffled anyway
            self._place += 1
        else:
            self._swap(self._draw(self._place, len(self.members) - 1), len(self.members) - 1)

    def remove(self, member: int) -> None:
        place = self.members.index(member)
        del self.members[place]
        self._place -= place < self._place

    def next(self) -> int | None:
        """The next member; None where there is none."""
        if self._place >= len(self.members):
            self._shuffle()
        if not self.members:
            return None
        self._place += 1
        return self.members[self._place - 1]

    def some(self, wanted: int, among: Callable[[int], bool], excluded: Collection[int] = ()) -> list[int]:
        """Up to ``wanted`` by lot, of those that suit. Looks at each once at most, and rarely at more than it needs."""
        members, found = self.members.copy() if len(self.members) < 64 else self.members, list[int]()
        if members is self.members:
            for _ in range(4 * wanted):
                member = members[self._draw(0, len(members) - 1)]
                if member not in found and member not in excluded and among(member):
                    found.append(member)
                    if len(found) == wanted:
                        return found
            members = [member for member in members if member not in found]
        for last in range(len(members) - 1, -1, -1):
            if len(found) == wanted:
                break
            place = self._draw(0, last)
            members[place], members[last] = members[last], members[place]
            if members[last] not in excluded and among(members[last]):
                found.append(members[last])
        return found

    def _shuffle(self) -> None:
        self._place = 0
        for last in range(len(self.members) - 1, 0, -1):
            self._swap(self._draw(0, last), last)

    def _swap(self, a: int, b: int) -> None:
        self.members[a], self.members[b] = self.members[b], self.members[a]
