"""What the leader sees to: that the right hosts vote, and that each of them could sign for newcomers if we were lost.

Nobody votes before it holds the authority's key: a new leader that could not sign would let nobody in.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from abi.errors import AbiError
from abid.cluster import credentials
from abid.cluster.peer import Peer
from abid.cluster.requests import Body
from abid.core.cluster.voters import Standing, next_change
from abid.core.raft.change import encoded
from abid.core.raft.configuration import Configuration

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""Between two looks at who votes and who should; followers catch up, members die."""
LASTS_S: Final = 10.0
"""Until a member that does not take the key is spoken of."""
SETTLED_LOOK_S: Final = 5.0
"""Where nothing is left to be done: we are told whatever changes that. This forgives a mistake."""
KEY = "authority-key"


class Leading:
    """``look`` whenever something changed; nothing happens where we do not lead."""

    def __init__(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        self._member = member
        self._loop = loop
        self._holders: set[int] = set()
        """Members that are known to hold the key, in this term of ours."""
        self._handing: dict[int, asyncio.Task[None]] = {}
        self._not_before: dict[int, float] = {}
        """When a member that did not take the key may be asked again. Something changes with each fact that is agreed
        on, and it must not be dialled each time."""
        self._failing_since: dict[int, float] = {}
        """Members that do not take it; infinity once that was said."""
        self._timer: asyncio.TimerHandle | None = None
        self._storing = asyncio.Lock()

    def look(self) -> None:
        """See that the next step towards the right voters is taken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._member.consensus.is_leader:
            self._holders.clear()
            self._not_before.clear()
            self._failing_since.clear()
            return
        # The timer first: what is proposed may change something at once, and that is looked at from in here.
        self._look_again_in(LOOK_S)
        if self._take_step():
            self._look_again_in(SETTLED_LOOK_S)

    def _look_again_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.look)

    def _take_step(self) -> bool:
        """The next one towards the right voters. True: there is none, and nobody is waited for."""
        consensus = self._member.consensus
        if not consensus.may_change:
            return False
        number = consensus.raft.number
        standings = {
            other: Standing(
                alive=other == number or self._member.is_alive(other),
                caught_up=other == number or (other in self._holders and consensus.caught_up(other)),
            )
            for other in consensus.facts.members
        }
        candidates = _candidates(consensus.configuration, standings)
        for other in sorted(candidates - self._holders - {number}):
            if other in standings and standings[other].alive:
                self._hand_key_to(other)
        proposal = next_change(consensus.configuration, standings, number)
        if proposal is not None:
            log.info("the voters change: %s", ", ".join(f"{c.kind.name.lower()} {c.node}" for c in proposal.changes))
            consensus.propose_change(encoded(proposal))
            return False
        return all(one.alive and (one.caught_up or other not in candidates) for other, one in standings.items())

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._handing.values():
            task.cancel()

    def _hand_key_to(self, number: int) -> None:
        consensus = self._member.consensus
        if number in self._handing or self._loop.time() < self._not_before.get(number, 0.0):
            return
        task = self._loop.create_task(self._hand_key(number, consensus.raft.term))
        self._handing[number] = task
        task.add_done_callback(lambda _: self._handing.pop(number, None))

    async def _hand_key(self, number: int, term: int) -> None:
        member = self._member
        node = member.node_of(number)
        try:
            authority = credentials.load_authority(member.folder)
            if node is None or authority is None:
                return
            peer = await member.reach.peer(node)
            body = {"key": authority.key_pem(), "term": term}
            await member.requests.ask(peer, KEY, body, member.request_timeout_s())
        except (AbiError, OSError) as error:
            self._on_not_taken(number, error.message if isinstance(error, AbiError) else str(error))
            return
        self._failing_since.pop(number, None)
        if member.consensus.is_leader and member.consensus.raft.term == term:
            self._holders.add(number)
            self.look()

    def _on_not_taken(self, number: int, why: str) -> None:
        """It is offered again. Who joined a moment ago has not opened its door yet; only what lasts is worth a line."""
        now = self._loop.time()
        self._not_before[number] = now + LOOK_S
        log.debug("member %d did not take the authority's key: %s", number, why)
        if now - self._failing_since.setdefault(number, now) >= LASTS_S:
            self._failing_since[number] = math.inf
            log.warning("member %d does not take the authority's key, and cannot vote: %s", number, why)

    # As somebody who is to vote.

    async def on_key(self, peer: Peer, body: Body) -> Body:
        """The leader hands us the authority's key; also one that was removed, and waits for somebody to vote for it."""
        member = self._member
        consensus = member.consensus
        if member.known_as(consensus.leader) != peer.node and consensus.leader:
            raise AbiError("only the leader hands out the authority's key", code="denied")
        from abid.cluster.authority import Authority

        authority = Authority.load(member.credentials.authority_certificate, body["key"])
        # Not in the loop: this is just after an election, and who answers no heartbeats meanwhile brings the next.
        async with self._storing:
            await asyncio.to_thread(credentials.store_authority_key, member.folder, authority.key_pem())
        member.authority = authority
        return {}


def _candidates(configuration: Configuration, standings: Mapping[int, Standing]) -> set[int]:
    """Voters, and as many learners as might have to take a voter's place: not everybody needs the key."""
    learners = sorted(other for other in configuration.learners if other in standings and standings[other].alive)
    return set(configuration.all_voters) | set(learners[: 5 + 1 - len(configuration.voters)])
