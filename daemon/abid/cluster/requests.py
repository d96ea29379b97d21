"""Questions between members: one frame there, one back, each with a number.

An answer may be refused by name, and a question whose connection ends is answered so at once: whoever asked knows then
that it may or may not have been heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from abi.errors import AbiError, NodeUnreachable, Timeout
from abi.wire.peers import PeerKind, Refused, Request, Response, decode, encode
from abid.cluster.peer import Peer

log = logging.getLogger(__name__)

Body = dict[str, Any]
Handler = Callable[[Peer, Body], Awaitable[Body]]
"""Raises AbiError, which is said to whoever asked; KeyError, TypeError and ValueError mean that the body is wrong."""
BUSY: Final = "busy"
"""The code by which a member refuses one question too many."""
ANSWERING_MAX: Final = 256
"""Questions of one peer that are being answered; more than this are refused: it asks without waiting."""


class PeerSaidNo(AbiError):
    """The other member refused; ``code`` and message are its own."""


class Requests:
    """Both sides: ``ask`` a peer, and ``handlers`` by verb for what peers ask."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.handlers: Mapping[str, Handler] = {}
        self._loop = loop
        self._next = 0
        self._asked: dict[int, tuple[Peer, asyncio.Future[Body]]] = {}
        self._answering: dict[Peer, set[asyncio.Task[None]]] = {}

    async def ask(self, peer: Peer, verb: str, body: Body, timeout_s: float) -> Body:
        """Raises PeerSaidNo, NodeUnreachable when the connection ended first, Timeout."""
        self._next += 1
        number, answer = self._next, self._loop.create_future()
        self._asked[number] = peer, answer
        try:
            peer.send(PeerKind.REQUEST, encode(Request(number, verb, body)))
            async with asyncio.timeout(timeout_s):
                said: Body = await answer
                return said
        except TimeoutError:
            raise Timeout(f"node {peer.node} did not answer {verb!r} within {timeout_s * 1000:.0f} ms") from None
        finally:
            del self._asked[number]

    def on_request(self, peer: Peer, payload: bytes) -> None:
        """Raises ProtocolError."""
        request: Request = decode(PeerKind.REQUEST, payload)
        tasks = self._answering.setdefault(peer, set())
        if len(tasks) >= ANSWERING_MAX:
            self._refuse(peer, request.number, AbiError(f"{ANSWERING_MAX} requests are unanswered", code=BUSY))
            return
        task = self._loop.create_task(self._answer(peer, request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_response(self, peer: Peer, payload: bytes) -> None:
        """Raises ProtocolError. One that nobody waits for any more is passed over."""
        response: Response = decode(PeerKind.RESPONSE, payload)
        asked, answer = self._asked.get(response.number, (None, None))
        if answer is None or asked is not peer or answer.done():
            return
        no = response.refused
        if no is None:
            answer.set_result(response.body)
        else:
            answer.set_exception(PeerSaidNo(no.message, code=no.code, hint=no.hint))

    def on_closed(self, peer: Peer) -> None:
        """Its questions need no answers, and ours get none."""
        for task in self._answering.pop(peer, ()):
            task.cancel()
        for asked, answer in self._asked.values():
            if asked is peer and not answer.done():
                answer.set_exception(NodeUnreachable(f"the connection with node {peer.node} ended before its answer"))

    async def _answer(self, peer: Peer, request: Request) -> None:
        try:
            handler = self.handlers.get(request.verb)
            if handler is None:
                raise AbiError(f"there is no request {request.verb!r} here", code="usage", hint="upgrade abi there")
            body = await handler(peer, request.body)
            peer.send(PeerKind.RESPONSE, encode(Response(request.number, body)))
        except AbiError as error:
            self._refuse(peer, request.number, error)
        except (KeyError, TypeError, ValueError) as error:
            self._refuse(peer, request.number, AbiError(f"{request.verb} does not take this: {error}", code="usage"))
        except Exception:
            log.exception("a request of node %s could not be answered", peer.node)
            self._refuse(peer, request.number, AbiError("the daemon could not answer this; its log says why"))

    def _refuse(self, peer: Peer, number: int, error: AbiError) -> None:
        said = Refused(error.code, error.message, error.hint)
        peer.send(PeerKind.RESPONSE, encode(Response(number, refused=said)))
