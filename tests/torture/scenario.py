"""One way of ill-treating a cluster, under a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.torture.figures import Figure


@dataclass(frozen=True)
class Options:
    """``times`` is how often the ill is done, ``minutes`` how long it lasts; a scenario goes by one of the two.
    ``tell`` prints a line about how far it is."""

    times: int
    minutes: float
    seed: int
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Scenario:
    """``run`` raises AssertionError where something broke that no figure tells of. ``times`` and ``minutes`` are what
    the project promises figures for."""

    name: str
    says: str
    run: Callable[[Options], list[Figure]]
    times: int = 1
    minutes: float = 0.0
