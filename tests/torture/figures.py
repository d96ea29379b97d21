"""What a torture measures, and what it must come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

_SHOWN_DIGITS: Final = 4


@dataclass(frozen=True)
class Figure:
    """``bound`` is the most that it may be. A gate must hold, a target should, and what is only seen has no bound."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    kind: Literal["gate", "target", "seen"] = "gate"

    def __post_init__(self) -> None:
        assert (self.bound is None) == (self.kind == "seen"), f"{self.name}: a gate has a bound, what is seen has none"

    @property
    def holds(self) -> bool:
        """Not where the value is no number."""
        return self.bound is None or self.value <= self.bound

    @property
    def fails(self) -> bool:
        """A gate that does not hold."""
        return self.kind == "gate" and not self.holds

    def shown(self) -> dict[str, Any]:
        words = {"name": self.name, "value": self.value, "unit": self.unit, "bound": self.bound, "kind": self.kind}
        return {**words, "holds": self.holds}


def seen(name: str, value: float, unit: str) -> Figure:
    return Figure(name, value, unit, None, "seen")


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the least value that so many percent of all do not exceed."""
    assert values, "of nothing there is no percentile"
    ranked = sorted(values)
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)]


def amount(value: float) -> str:
    """A number as people read it."""
    if value == int(value) or abs(value) >= 10**_SHOWN_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{_SHOWN_DIGITS}g}"


def table(figures: Sequence[Figure]) -> str:
    """One line each."""
    rows = [
        (
            figure.name,
            f"{amount(figure.value)} {figure.unit}".strip(),
            "" if figure.bound is None else f"{figure.kind} {amount(figure.bound)}",
            "" if figure.bound is None else "holds" if figure.holds else "DOES NOT HOLD",
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    return "\n".join(
        "  " + "  ".join([*(word.ljust(width) for word, width in zip(row[:3], widths, strict=True)), row[3]]).rstrip()
        for row in rows
    )
