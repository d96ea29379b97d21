"""What a majority has agreed on. While a configuration changes, it takes two majorities (thesis, 4.3)."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Final

EVERYTHING: Final = 1 << 62
"""What an empty group agrees on: it holds nobody back, so that it can stand as the second of two."""


class Vote(enum.Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def agreed(voters: Collection[int], stored: Mapping[int, int]) -> int:
    """The highest index that a majority of ``voters`` has stored (paper, 5.3). Who says nothing has stored nothing."""
    if not voters:
        return EVERYTHING
    indexes = sorted((stored.get(voter, 0) for voter in voters), reverse=True)
    return indexes[len(indexes) // 2]


def agreed_by_both(incoming: Collection[int], outgoing: Collection[int], stored: Mapping[int, int]) -> int:
    """In a joint configuration: what each of the two majorities has stored."""
    return min(agreed(incoming, stored), agreed(outgoing, stored))


def counted(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """An election's state (paper, 5.2): won by a majority, lost when none is possible any more."""
    if not voters:
        return Vote.WON
    needed = len(voters) // 2 + 1
    granted = sum(votes.get(voter) is True for voter in voters)
    refused = sum(votes.get(voter) is False for voter in voters)
    if granted >= needed:
        return Vote.WON
    return Vote.PENDING if len(voters) - refused >= needed else Vote.LOST


def counted_by_both(incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """Won by both majorities, lost by either."""
    both = {counted(incoming, votes), counted(outgoing, votes)}
    if Vote.LOST in both:
        return Vote.LOST
    return Vote.PENDING if Vote.PENDING in both else Vote.WON
