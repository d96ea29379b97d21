"""What a line of the bench says of itself: its metrics, and the bounds that they must or should keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from abi_cli.bench.contenders import Runtime

OURS = "abi"
Kind = Literal["gate", "target"]
Sense = Literal["least", "most"]


@dataclass(frozen=True)
class Claim:
    """One bound. A gate must hold, a target is aimed at.

    Without a `peer`, `bound` is in the metric's unit. With one it is a ratio: `least` says how many times as good as
    the peer we are at least, `most` how many times the peer's figure ours is at most.
    """

    kind: Kind
    sense: Sense
    bound: float
    peer: str = ""

    def holds(self, value: float) -> bool:
        """Whether `value`, a figure or a ratio as this claim means it, is within the bound."""
        return value >= self.bound if self.sense == "least" else value <= self.bound


@dataclass(frozen=True)
class Metric:
    """One number that a line measures in each round. `key` is its name in `--json`, with the unit last."""

    key: str
    title: str
    unit: str
    better: Literal["more", "less"]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What a measurement may use: `cores` workers, and a fresh `directory` that is removed afterwards.

    `scale` shrinks the counts, for tests that only want to see the way things go.
    """

    cores: int
    directory: str
    scale: float = 1.0

    def count(self, number: int) -> int:
        """`number`, scaled, and at least one."""
        return max(1, round(number * self.scale))


@dataclass(frozen=True)
class Line:
    """One line of the bench. `measure` runs in a process of its own and returns a number for each metric.

    `peers` are those that it can be measured with; `limit_s` is when a measurement that does not end is given up.
    """

    name: str
    measure: Callable[[Runtime, Setup], dict[str, float]]
    metrics: tuple[Metric, ...]
    peers: tuple[str, ...] = ()
    limit_s: float = 120.0


def gate_least(bound: float, peer: str = "") -> Claim:
    """It must be at least this (or so many times as good as the peer)."""
    return Claim("gate", "least", bound, peer)


def gate_most(bound: float, peer: str = "") -> Claim:
    """It must be at most this (or so many times the peer's figure)."""
    return Claim("gate", "most", bound, peer)


def target_least(bound: float, peer: str = "") -> Claim:
    """It should be at least this (or so many times as good as the peer)."""
    return Claim("target", "least", bound, peer)


def target_most(bound: float, peer: str = "") -> Claim:
    """It should be at most this (or so many times the peer's figure)."""
    return Claim("target", "most", bound, peer)
