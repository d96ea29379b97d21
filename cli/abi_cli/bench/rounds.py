"""The order of things: in each round every contender is measured once, and each round begins with another of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from abi_cli.bench.child import Reading
from abi_cli.bench.claims import OURS, Line
from abi_cli.bench.peers import Contender

T = TypeVar("T")
Readings = dict[str, list[Reading]]  # by contender, one a round


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Beginning `by` places later, so that over the rounds everybody is first, and last, as often."""
    cut = by % len(items) if items else 0
    return [*items[cut:], *items[:cut]]


def taking_part(line: Line, contenders: Sequence[Contender]) -> list[Contender]:
    """We, and those peers that this line can be measured with and that are there."""
    return [each for each in contenders if each.name == OURS or (each.name in line.peers and not each.missing)]


def schedule(contenders: Sequence[Contender], rounds: int) -> Iterator[tuple[int, Contender]]:
    """(round, contender), in the order in which they are measured."""
    for number in range(rounds):
        for contender in rotated(contenders, number):
            yield number, contender


def gather(
    line: Line,
    contenders: Sequence[Contender],
    rounds: int,
    measure: Callable[[Line, Contender], Reading],
    about_to: Callable[[int, Contender], None],
) -> Readings:
    """All readings of one line; `about_to` is told before each."""
    readings: Readings = {contender.name: [] for contender in taking_part(line, contenders)}
    for number, contender in schedule(taking_part(line, contenders), rounds):
        about_to(number, contender)
        readings[contender.name].append(measure(line, contender))
    return readings
