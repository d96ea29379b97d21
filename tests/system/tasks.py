"""Remote functions that more than one test needs, in a module that a worker imports in no time."""

from __future__ import annotations

import abi
from tests.system.words import hold, say


@abi.remote
def stay(name: str, ear: str, gate: str) -> str:
    """Says that it runs, and runs until it is let go."""
    say(ear, name)
    hold(gate)
    return name


@abi.remote
def leaf(n: int) -> int:
    return n


@abi.remote
def parent(n: int) -> int:
    return sum(abi.get([leaf.remote(n), leaf.remote(n), leaf.remote(n)]))


@abi.remote
def descend(levels: int) -> int:
    return 0 if levels == 0 else 1 + abi.get(descend.remote(levels - 1))


@abi.remote(memory=300 << 20)
def greedy(levels: int) -> int:
    """As ``descend``, and each level keeps its memory."""
    return 0 if levels == 0 else 1 + abi.get(greedy.remote(levels - 1))
