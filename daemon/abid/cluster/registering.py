"""Hosts that a person names by hand: dialled now, remembered on disk, and taken back.

A member dials what is named at once, and says what came of it; whatever that is, the address is kept, and tried again
with the others of discovery. A host that is in no cluster keeps it for the day when it joins one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from abi.errors import AbiError, NotFound, UsageError
from abid.cluster import lookup, remembered
from abid.cluster.dialling import why_at
from abid.cluster.discovery import DEFAULT_PORT, Discoverer
from abid.cluster.refusal import Code
from abid.core.dialling import Address
from abid.core.discovery import Peer

DIALS_MAX: Final = 16
"""Of what one name stands for; the others are remembered, and dialled in their turn."""


class Registering:
    """``discoverer`` is the member's, if this host is one; ``folder`` is where peers are remembered; ``port`` is meant
    where none is said; ``own`` are the addresses of this host."""

    def __init__(
        self, discoverer: Discoverer | None, folder: Path, port: int, own: Callable[[], Iterable[str]]
    ) -> None:
        self._discoverer = discoverer
        self._folder = folder
        self._port = port or DEFAULT_PORT
        self._own = own

    async def register(self, text: str) -> dict[str, Any]:
        """Raises UsageError, also for this host itself, and ``lookup.NameUnknown``."""
        place = lookup.parse(text, self._port)
        found = await lookup.resolved([place])
        if not found:
            raise lookup.NameUnknown(f"nothing is known of a host {place.host!r}", hint="is it spelled right?")
        if self._discoverer is None:
            return self._keep(found)
        met = await self._discoverer.register(found, DIALS_MAX)
        outcomes = {address: _told(address, came) for address, came in zip(found, met, strict=False)}
        own = [address for address, told in outcomes.items() if told["code"] == Code.ITSELF]
        for address in own:
            self._discoverer.unregister(address)
        await self._discoverer.saved()
        if len(own) == len(found):
            raise _is_own(text)
        kept = [address for address in found if address not in own]
        return {
            "registered": [str(address) for address in kept],
            "joined": True,
            "dialled": [outcomes[address] for address in kept if address in outcomes],
            "is_tried_again": self._discoverer.is_enabled,
        }

    def _keep(self, found: Sequence[Address]) -> dict[str, Any]:
        own = set(self._own())
        if all(address.port == self._port and address.host in own for address in found):
            raise _is_own(str(found[0]))
        known = [peer for peer in self._peers() if peer.address not in found]
        self._save([*known, *(Peer(address, b"", True) for address in found)])
        registered = [str(address) for address in found]
        return {"registered": registered, "joined": False, "dialled": [], "is_tried_again": True}

    def listed(self) -> dict[str, Any]:
        """In the order in which they were met or named."""
        return {
            "registered": [
                {"address": str(peer.address), "node": peer.node.hex() or None}
                for peer in self._peers()
                if peer.is_registered
            ]
        }

    async def unregister(self, text: str) -> dict[str, Any]:
        """Raises UsageError, and NotFound for what is not registered."""
        found = await lookup.resolved([lookup.parse(text, self._port)])
        gone = [peer.address for peer in self._peers() if peer.is_registered and peer.address in found]
        if not gone:
            raise NotFound(f"{text} is not registered", hint="`abi network register --list` shows what is")
        if self._discoverer is None:
            self._save([peer for peer in self._peers() if peer.address not in gone])
        else:
            for address in gone:
                self._discoverer.unregister(address)
            await self._discoverer.saved()
        return {"unregistered": [str(address) for address in gone]}

    def _peers(self) -> list[Peer]:
        return remembered.load(self._folder) if self._discoverer is None else self._discoverer.peers

    def _save(self, peers: Iterable[Peer]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remembered.save(self._folder, peers)


def _told(address: Address, came: bytes | Exception) -> dict[str, Any]:
    """What came of its first dial: the node that answers, or why there is none."""
    if isinstance(came, bytes):
        return {"address": str(address), "node": came.hex(), "code": None, "message": "", "hint": ""}
    why: AbiError = why_at(str(address), came)
    return {"address": str(address), "node": None, "code": why.code, "message": why.message, "hint": why.hint}


def _is_own(text: str) -> UsageError:
    return UsageError(f"{text} is this host itself", hint="name another one, where a member of the cluster is")
