"""From which addresses members may come, for the door: looked up while somebody knocks, and not for each who does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

KEPT_S: Final = 5.0
"""A thousand members have some thousand addresses, which takes a few ms to go through; who joined just now is expected
a little later."""


class Expected:
    """``hosts`` gives the addresses, without ports; ``now`` the time in seconds."""

    def __init__(self, hosts: Callable[[], Iterable[str]], now: Callable[[], float]) -> None:
        self._hosts = hosts
        self._now = now
        self._kept: frozenset[str] = frozenset()
        self._kept_until = now()

    def __call__(self, address: str) -> bool:
        now = self._now()
        if now >= self._kept_until:
            self._kept, self._kept_until = frozenset(self._hosts()), now + KEPT_S
        return address in self._kept


def host_of(place: str) -> str:
    """Of HOST:PORT or [ADDRESS]:PORT, as members say it of themselves; of anything else, something that nobody has."""
    return place.rpartition(":")[0].strip("[]")
