"""The order of things: in each round every contender is measured once, and each round begins with another of them.

A virtual machine's host gives processors to others at times of its own choosing, and the figures of such a round tell
of the host. So a round in which it took too much is made up for by a further one, at most as many again as were asked
for, and of all rounds the calmest count: chosen by what the host took, for all contenders alike, never by a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from abi_cli.bench.child import Reading
from abi_cli.bench.claims import OURS, Line
from abi_cli.bench.peers import Contender

T = TypeVar("T")
Readings = dict[str, list[Reading]]  # by contender, one a round
CALM = 0.02
"""The share of all processors that the host may have taken in a round that counts."""


@dataclass(frozen=True)
class Gathered:
    """The rounds that count, of how many there were, and the share of the processors that was stolen in those kept."""

    readings: Readings
    rounds: int
    stolen: float


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Beginning `by` places later, so that over the rounds everybody is first, and last, as often."""
    cut = by % len(items) if items else 0
    return [*items[cut:], *items[:cut]]


def taking_part(line: Line, contenders: Sequence[Contender]) -> list[Contender]:
    """We, and those peers that this line can be measured with and that are there."""
    return [each for each in contenders if each.name == OURS or (each.name in line.peers and not each.missing)]


def calmest(stolen: Sequence[float], count: int) -> list[int]:
    """The `count` rounds in which least was stolen, in their order."""
    return sorted(sorted(range(len(stolen)), key=stolen.__getitem__)[:count])


def gather(
    line: Line,
    contenders: Sequence[Contender],
    rounds: int,
    measure: Callable[[Line, Contender], Reading],
    about_to: Callable[[int, Contender], None],
    stolen: Callable[[], float] = lambda: 0.0,
) -> Gathered:
    """The readings of one line; `about_to` is told before each, `stolen` says the share since it was last asked."""
    here = taking_part(line, contenders)
    readings: Readings = {contender.name: [] for contender in here}
    shares: list[float] = []
    stolen()
    while sum(share <= CALM for share in shares) < rounds and len(shares) < 2 * rounds:
        for contender in rotated(here, len(shares)):
            about_to(len(shares), contender)
            readings[contender.name].append(measure(line, contender))
        shares.append(stolen())
    kept = calmest(shares, rounds)
    return Gathered(
        {name: [each[number] for number in kept] for name, each in readings.items()},
        len(shares),
        sum(shares[number] for number in kept) / rounds,
    )
