"""Where graphics cards come from: the seam for a probe. No probe is built in yet, so a host has no cards.

A probe names cards by UUID, since CUDA and the driver's library number them differently, and is asked once, at start.
One that asks a driver will have to do so in a thread with a time limit: drivers hang. `pool` hands the ids to
``Setup.gpu_ids``.
"""

from __future__ import annotations

from typing import Protocol


class GpuProbe(Protocol):
    """Lists the cards of this host."""

    def uuids(self) -> list[str]:
        """UUIDs of usable cards, in PCI order. Never raises: no driver means no cards."""
        ...


class NoCards:
    """The probe of a host whose cards are not used."""

    def uuids(self) -> list[str]:
        return []
