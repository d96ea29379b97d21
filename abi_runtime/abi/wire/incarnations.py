"""The incarnations of a cluster: the first when it is founded, another each time that somebody recovers it.

An incarnation is one integer, in certificates, greetings and facts. Two hosts may recover the same cluster at the same
time, and neither can ask the other. So all but the first are drawn::

    1                             the first
    generation << 32 | 32 bits    a later one: above each of an earlier generation, and equal to none by chance

It stays below 2**53, so that whatever reads JSON reads it.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 1
LOT_BITS: Final = 32


def following(incarnation: int, lot: int) -> int:
    """The next one; ``lot`` has ``LOT_BITS`` random bits."""
    return (generation(incarnation) + 1) << LOT_BITS | lot


def generation(incarnation: int) -> int:
    """How often the cluster was founded, with the first time."""
    return incarnation >> LOT_BITS or incarnation


def name(incarnation: int) -> str:
    """For people: the generation, and what it drew, such as 2-5f3a9c01."""
    lot = f"-{incarnation & (1 << LOT_BITS) - 1:08x}" if incarnation >> LOT_BITS else ""
    return f"{generation(incarnation)}{lot}"
