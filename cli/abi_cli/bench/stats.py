"""The few statistics the bench needs, on plain lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 < share ≤ 1) of them do not exceed: nearest rank, never made up.

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    # ceil(share × n), held against the error of floating point: 0.99 × 100 is 99.00000000000001 on paper too.
    rank = math.ceil(share * len(ordered) - 1e-9)
    return ordered[max(rank, 1) - 1]


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def p99(values: Sequence[float], *, more_is_better: bool) -> float:
    """What 99 of 100 are at least as good as: with few values, the worst. Raises ValueError for no values."""
    if more_is_better:
        return -quantile([-value for value in values], 0.99)
    return quantile(values, 0.99)


def median_ratio(over: Sequence[float | None], under: Sequence[float | None]) -> float | None:
    """The median of the rounds' own ratios, so that an hour in which everything was slow cancels out.

    The lists are aligned by round; rounds where one is missing (None) or `under` is zero do not count. None if none
    does.
    """
    ratios = [a / b for a, b in zip(over, under, strict=False) if a is not None and b]
    return median(ratios) if ratios else None
