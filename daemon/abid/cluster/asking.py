"""Asking the cluster: whoever leads just now, for as long as it takes, and with effect once.

1. A request is given its origin and serial before it is first sent.
2. The leader may take it and be lost before its answer comes. So it is asked again, of the next leader, as the same.
3. The facts remember each origin's last serial: what was taken twice has its effect once (``facts.apply``).

So a host asks for one thing at a time, and what it asks for next has a higher serial.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from abi.errors import AbiError, NodeUnreachable, Timeout
from abid.cluster.consensus import Consensus, NotLeader, Superseded
from abid.cluster.peer import Peer
from abid.cluster.reach import Reach
from abid.cluster.refusal import PeerRefused
from abid.cluster.requests import Body, PeerSaidNo, Requests
from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import Result

log = logging.getLogger(__name__)

AGAIN_S: Final = (0.05, 0.15)
"""Between two attempts, by lot: an election takes half a second."""
COMMAND, READ = "command", "read"
NOT_LEADER: Final = "not_leader"
"""The code by which a member says that it cannot, and that another may."""


class NoLeader(AbiError):
    """Nobody could be asked in time. It may or may not have come to pass, if it was heard at all."""

    code = "unavailable"


class Asking:
    """``serial`` is the first of this life of the daemon, above all of earlier ones."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        consensus: Consensus,
        requests: Requests,
        reach: Reach,
        node_of: Callable[[int], str | None],
        draw: Callable[[float, float], float],
        serial: int,
        timeout_s: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._consensus = consensus
        self._requests = requests
        self._reach = reach
        self._node_of = node_of
        self._draw = draw
        self._serial = serial
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()

    async def command(self, kind: Callable[..., AnyCommand], **words: Any) -> Result:
        """Have it done. A result that is refused is returned, not raised. Raises NoLeader."""
        async with self._turn:
            self._serial += 1
            number = self._consensus.raft.number
            command = kind(origin=number, serial=self._serial, at_ms=time.time_ns() // 1_000_000, **words)
            return await self._ask(lambda: self.propose(command), COMMAND, {"command": commands.encode(command)})

    async def read(self, what: str, **words: Any) -> Result:
        """Have the leader look, when its facts are as fresh as this moment. Raises NoLeader."""
        return await self._ask(lambda: self.look(what, words), READ, {"what": what, "words": words})

    async def _ask(self, here: Callable[[], Any], verb: str, body: Body) -> Result:
        ends = self._loop.time() + self._timeout_s()
        why: AbiError = NotLeader(0)
        while (left := ends - self._loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    return await self._ask_leader(here, verb, body, left)
            except TimeoutError:
                break
            except (NotLeader, Superseded, NodeUnreachable, PeerRefused, Timeout) as error:
                why = error
            await asyncio.sleep(self._draw(*AGAIN_S))
        raise NoLeader(
            f"the cluster did not answer within {self._timeout_s():.3g} s: {why.message}",
            hint="a majority of its voters has to be up; `abi network status` shows them",
        )

    async def _ask_leader(self, here: Callable[[], Any], verb: str, body: Body, left: float) -> Result:
        consensus = self._consensus
        if consensus.is_leader:
            result: Result = await here()
            return result
        node = self._node_of(consensus.leader)
        if node is None:
            raise NotLeader(0)
        try:
            answer = await self._requests.ask(await self._reach.peer(node), verb, body, left)
        except PeerSaidNo as error:
            if error.code == NOT_LEADER:
                raise NotLeader(0) from None
            raise
        return msgspec.convert(answer, Result)

    # As the leader.

    async def propose(self, command: AnyCommand) -> Result:
        """Raises NotLeader and Superseded."""
        return await self._told(lambda told: self._consensus.propose(command, told))

    async def look(self, what: str, words: Body) -> Result:
        """Raises NotLeader, Superseded, and UsageError-like KeyError for what cannot be looked for."""
        await self._told(self._consensus.read)
        return LOOKS[what](self._consensus, **words)

    async def on_command(self, peer: Peer, body: Body) -> Body:
        """A member asks us as the leader. It speaks for itself only."""
        command = commands.decode(body["command"])
        if self._node_of(command.origin) != peer.node:
            raise AbiError(f"node {peer.node} asks in the name of member {command.origin}", code="denied")
        return await self._as_answer(self.propose(command))

    async def on_read(self, peer: Peer, body: Body) -> Body:
        return await self._as_answer(self.look(body["what"], body["words"]))

    async def _as_answer(self, asked: Any) -> Body:
        try:
            told: Body = msgspec.to_builtins(await asked)
        except (NotLeader, Superseded) as error:
            raise AbiError(error.message, code=NOT_LEADER) from None
        return told

    async def _told(self, ask: Callable[[Callable[[Result | AbiError], None]], None]) -> Result:
        future: asyncio.Future[Result] = self._loop.create_future()

        def told(result: Result | AbiError) -> None:
            if future.done():
                return
            if isinstance(result, AbiError):
                future.set_exception(result)
            else:
                future.set_result(result)

        ask(told)
        return await future


def _name(consensus: Consensus, name: str) -> Result:
    held = consensus.facts.names.get(name)
    return Result("unknown", f"nobody holds {name!r}") if held is None else Result(value=held.owner)


LOOKS: Final[dict[str, Callable[..., Result]]] = {"name": _name}
"""What can be read, by its word."""
