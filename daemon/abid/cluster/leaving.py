"""How a host leaves its cluster: by agreement, or by force, when the others cannot agree on anything.

Also who goes by force asks for the agreement first, for a few seconds and if anybody is there: a voter that is gone
without it counts on, and two of three that go so take the majority with them. If it does not come, those who are
connected are told at least, so that they do not wait for this host to start again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from abi.errors import AbiError
from abid.cluster.asking import NoLeader, done
from abid.cluster.peer import Peer
from abid.cluster.requests import Body
from abid.cluster.waking import UNANSWERED
from abid.core.cluster import commands

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

LEAVE_S: Final = 10.0
"""For the others to take our vote from us; afterwards we go all the same."""
FORCED_S: Final = 3.0
"""For an agreement, when we go in any case: an election takes a second at most."""
TOLD_S: Final = 1.0
GONE: Final = "gone"
FAILURES: Final = (*UNANSWERED, NoLeader)
"""Of an agreement that was asked for: it did not come, or nobody knows."""


async def by_agreement(member: Member) -> None:
    """Raises AbiError: FAILURES, or what the cluster refused with."""
    done(await member.asking.command(commands.Remove, number=member.number, revoke=False))
    await member.wait(lambda: member.number not in member.consensus.configuration.members, LEAVE_S)


async def by_force(member: Member) -> bool:
    """Whether the cluster agreed on it after all."""
    if not member.peers.connected:
        return False
    agreement = asyncio.ensure_future(by_agreement(member))
    await asyncio.wait([agreement], timeout=FORCED_S)
    if not agreement.done():
        agreement.cancel()
    elif agreement.exception() is None:
        return True
    await asyncio.gather(*(_tell(member, peer) for peer in list(member.peers.connected.values())))
    return False


async def _tell(member: Member, peer: Peer) -> None:
    try:
        await member.requests.ask(peer, GONE, {}, TOLD_S)
    except AbiError as error:
        log.info("node %s could not be told that this host leaves: %s", peer.node, error)


class Gone:
    """Who told us that it leaves by force, and has not come back."""

    def __init__(self) -> None:
        self._nodes: set[str] = set()

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    async def on_told(self, peer: Peer, body: Body) -> Body:
        """It goes."""
        log.warning("node %s leaves by force: the cluster has not agreed on it", peer.node)
        self._nodes.add(peer.node)
        return {}

    def on_connected(self, node: str) -> None:
        """It is here again."""
        self._nodes.discard(node)

    def keep(self, members: set[str]) -> None:
        """Of others nothing counts any more."""
        self._nodes &= members
