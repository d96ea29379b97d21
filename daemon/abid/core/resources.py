"""What a node has and what a task asks for, in integers: a thousand additions and removals end where they began."""

from __future__ import annotations

from typing import Final

import msgspec

from abi.wire.schema import UNITS

CPUS: Final = "cpus"
MEMORY: Final = "memory"
GPUS: Final = "gpus"
RESERVED_NAMES: Final = frozenset({CPUS, MEMORY, GPUS, "processes"})
"""Custom resources may not be called so."""


class Total(msgspec.Struct, frozen=True):
    """What the node has."""

    cpus: int
    """Units of 1/10000."""
    memory: int = 0
    """Bytes."""
    gpus: tuple[str, ...] = ()
    resources: dict[str, int] = {}
    """Custom ones, in units."""


class Shape:
    """What a task holds while it runs. One object per distinct value, so that shapes compare by identity."""

    __slots__ = ("__weakref__", "alone", "cpus", "gpus", "needs")

    def __init__(self, cpus: int, gpus: int, needs: tuple[tuple[str, int], ...], alone: bool) -> None:
        self.cpus = cpus
        self.gpus = gpus
        """Whole cards, which belong to a worker for life."""
        self.needs = needs
        """(name, amount) of all but the cards, amounts above 0."""
        self.alone = alone
        """One call per Run, and only to a worker with nothing outstanding."""

    def __repr__(self) -> str:
        return f"<shape {self.text()}{' alone' if self.alone else ''}>"

    def text(self) -> str:
        """As people write it: ``2 CPUs, 1 GPU``."""
        words = [amount_text(name, amount) for name, amount in self.needs]
        if self.gpus:
            words.append(gpus_text(self.gpus))
        return ", ".join(words) or "no resources"


def amount_text(name: str, amount: int) -> str:
    """``1 CPU``, ``1.5 CPUs``, ``2.00 GiB of memory``."""
    if name == MEMORY:
        return f"{amount / 2**30:.2f} GiB of memory"
    if name == CPUS:
        return f"{amount / UNITS:g} CPU{'s' if amount != UNITS else ''}"
    return f"{amount / UNITS:g} {name}"


def gpus_text(count: int) -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{count} GPU{'s' if count != 1 else ''}"


def bare_amount_text(name: str, amount: int) -> str:
    return f"{amount / 2**30:.2f} GiB" if name == MEMORY else f"{amount / UNITS:g}"


class Resources:
    """Totals and what is free of them. ``free`` may go below 0 for processors: a blocked task that goes on takes its
    back."""

    __slots__ = ("free", "free_gpus", "gpus", "total")

    def __init__(self, total: Total) -> None:
        self.total: dict[str, int] = {**total.resources, CPUS: total.cpus, MEMORY: total.memory}
        self.free = dict(self.total)
        self.gpus = total.gpus
        self.free_gpus = list(total.gpus)

    def fits(self, shape: Shape) -> bool:
        free = self.free
        for name, amount in shape.needs:  # noqa: SIM110 - a generator costs more than the loop
            if free[name] < amount:
                return False
        return True

    def count(self, shape: Shape, most: int) -> int:
        """How many of this shape fit now, at most ``most``."""
        free = self.free
        for name, amount in shape.needs:
            most = min(most, free[name] // amount)
        return max(0, most)

    def lacking(self, shape: Shape) -> frozenset[str]:
        return frozenset(name for name, amount in shape.needs if self.free[name] < amount)

    def take(self, shape: Shape) -> None:
        free = self.free
        for name, amount in shape.needs:
            free[name] -= amount

    def give(self, shape: Shape) -> None:
        free = self.free
        for name, amount in shape.needs:
            free[name] += amount

    def infeasible(self, shape: Shape) -> str:
        """Why this can never run here, naming what was asked and the nearest there is; empty when it can."""
        for name, amount in shape.needs:
            if name not in self.total:
                have = ", ".join(sorted(set(self.total) - RESERVED_NAMES)) or "none"
                asked = amount_text(name, amount)
                return f"asks for {asked}, which this node does not have (custom resources here: {have})"
            if amount > self.total[name]:
                return f"asks for {amount_text(name, amount)}; this node has {bare_amount_text(name, self.total[name])}"
        if shape.gpus > len(self.gpus):
            return f"asks for {gpus_text(shape.gpus)}; this node has {len(self.gpus)}"
        return ""
