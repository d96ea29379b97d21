"""How amounts of resources are counted: in ten-thousandths, everywhere."""

from __future__ import annotations

from typing import Final

AMOUNT_MAX: Final = 1e14
"""Of any resource: in ten-thousandths it still fits the 64 bits of the wire."""


def units(name: str, amount: float) -> int:
    """Ten-thousandths. Raises ValueError for a negative amount and for a finer step."""
    if not 0 <= amount < AMOUNT_MAX:  # nor is it so of a NaN
        raise ValueError(f"{name} must be from 0 to {AMOUNT_MAX:.0e}, and is {amount}")
    from abi.wire.schema import UNITS  # here: declaring a function shall not load what only calls need

    scaled = amount * UNITS
    whole = round(scaled)
    if abs(scaled - whole) > 1e-6 * max(1.0, scaled):
        raise ValueError(f"{name}={amount} is finer than resources are counted: in steps of 0.0001")
    return whole
