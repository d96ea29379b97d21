"""Connections with members, made when they are needed: by what is to be sent, or by a wish to know them alive.

One dial a member is under way at a time, and after one that failed there is a pause, drawn by lot, that doubles up to a
limit: members that come back are not met by all the others at once. What cannot be sent now is dropped; Raft and
membership say again what matters.

Who asks a question (``ask``) waits for the connection itself, whatever the pauses, and is stopped only by the member's
circuit breaker (``breakers``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from abi.errors import AbiError, NodeUnreachable
from abid.cluster.breakers import Breakers
from abid.cluster.peer import Peer
from abid.cluster.peers import Peers
from abid.cluster.refusal import PeerRefused
from abid.cluster.requests import Body, Requests

log = logging.getLogger(__name__)

PAUSE_S: Final = 0.1
"""After the first dial that failed; a leader's death is noticed by its followers within a few of these."""
PAUSE_S_MAX: Final = 5.0
"""Below the ten seconds after which a silent member is held for dead."""


class Reach:
    """``addresses_of`` gives what is known of a node now; ``timeout_s`` is dial and greeting together."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        peers: Peers,
        requests: Requests,
        addresses_of: Callable[[str], Sequence[str]],
        draw: Callable[[float, float], float],
        timeout_s: Callable[[], float],
        on_refused: Callable[[str, AbiError], None],
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.breakers = Breakers(now)
        self._loop = loop
        self._peers = peers
        self._requests = requests
        self._addresses_of = addresses_of
        self._draw = draw
        self._timeout_s = timeout_s
        self._on_refused = on_refused
        self._dials: dict[str, asyncio.Task[Peer]] = {}
        self._pauses: dict[str, tuple[float, float]] = {}
        """By node: the last pause, and when it ends."""

    def send(self, node: str, kind: int, payload: bytes) -> bool:
        """Now, or not at all; but then there may be a connection the next time."""
        if self._peers.send(node, kind, payload):
            return True
        self.want(node)
        return False

    def want(self, node: str) -> None:
        """Dial it, unless that is under way or failed just now."""
        if node in self._dials or node in self._peers.connected or node == self._peers.node:
            return
        _, until = self._pauses.get(node, (0.0, 0.0))
        if self._loop.time() >= until:
            self._dial(node).add_done_callback(lambda dial: self._pause_after(node, dial))

    async def peer(self, node: str) -> Peer:
        """Its connection, made now if there is none. Raises NodeUnreachable and PeerRefused."""
        connected = self._peers.connected.get(node)
        if connected is not None:
            return connected
        dial = self._dials.get(node) or self._dial(node)
        try:
            return await asyncio.shield(dial)
        except asyncio.CancelledError:
            if dial.cancelled() and not _is_being_cancelled():
                raise NodeUnreachable(f"node {node} is not dialled any more") from None
            raise

    async def ask(self, node: str, verb: str, body: Body, timeout_s: float) -> Body:
        """A member's answer; ``timeout_s`` is for connection and answer together.

        Raises PeerSaidNo (that is its answer); NodeUnreachable and PeerRefused when nobody could be asked or the
        connection broke, ``BreakerOpen`` among them, at once; Timeout when it was asked and did not answer.
        """
        ends = self._loop.time() + timeout_s
        with self.breakers.guarding(node):
            try:
                async with asyncio.timeout_at(ends):
                    peer = await self.peer(node)
            except TimeoutError:
                raise NodeUnreachable(f"no connection with node {node} within {timeout_s * 1000:.0f} ms") from None
            return await self._requests.ask(peer, verb, body, ends - self._loop.time())

    def heard(self, nodes: Iterable[str]) -> int:
        """How many of these are connected, this host among them."""
        return sum(node in self._peers.connected or node == self._peers.node for node in nodes)

    def on_connected(self, node: str) -> None:
        """By whomever it was made."""
        self.breakers.on_connected(node)

    def on_let_in(self, node: str) -> None:
        """It is connected, and not only to be sent away."""
        self._pauses.pop(node, None)

    def keep(self, members: Collection[str]) -> None:
        """These are the members now; nothing is known of anybody else."""
        for node in {*self._dials, *self._pauses, *self.breakers.nodes}.difference(members):
            self.forget(node)

    def forget(self, node: str) -> None:
        """It is no member any more."""
        self.breakers.forget(node)
        self._pauses.pop(node, None)
        dial = self._dials.pop(node, None)
        if dial is not None:
            dial.cancel()

    def close(self) -> None:
        for dial in list(self._dials.values()):
            dial.cancel()

    def _dial(self, node: str) -> asyncio.Task[Peer]:
        task = self._loop.create_task(self._peers.dial(self._addresses_of(node), self._timeout_s(), node))
        self._dials[node] = task
        task.add_done_callback(lambda done: self._on_dialled(node, done))
        return task

    def _on_dialled(self, node: str, dial: asyncio.Task[Peer]) -> None:
        if self._dials.get(node) is dial:
            del self._dials[node]
        error = None if dial.cancelled() else dial.exception()
        if error is None:
            return
        level = logging.DEBUG if isinstance(error, AbiError) else logging.ERROR
        if isinstance(error, PeerRefused):
            self._on_refused(node, error)
        log.log(level, "node %s cannot be reached: %s", node, error)

    def _pause_after(self, node: str, dial: asyncio.Task[Peer]) -> None:
        """Of a wish. The dials of those who ask make no pause longer: Raft and membership must not wait for them."""
        if not dial.cancelled() and dial.exception() is not None:
            self.rest(node)

    def rest(self, node: str) -> None:
        """``want`` dials it no more for a while, and longer each time until it is let in."""
        before, _ = self._pauses.get(node, (0.0, 0.0))
        pause = min(before * 2, PAUSE_S_MAX) if before else PAUSE_S
        self._pauses[node] = pause, self._loop.time() + self._draw(pause / 2, pause)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
