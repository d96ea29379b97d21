"""From addresses to one open link: each is tried, a little after the one before, and the first that answers rightly is
taken (after "Happy Eyeballs", RFC 8305).

A host has several addresses, and some of them lead nowhere or to another host: docker0's is the same on every host. So
an address counts as answered only when TLS is up and the certificate is the one that was looked for.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from abi import addresses
from abi.errors import AbiError, NodeUnreachable, UsageError
from abid.cluster.link import Link, Owner
from abid.cluster.refusal import Code, PeerRefused

STAGGER_S: Final = 0.25
"""Before the next address is tried as well (RFC 8305, 5)."""
ADDRESSES_MAX: Final = 16
"""That one dial tries: at the stagger above all are under way within four seconds."""


class Runner(Owner):
    """For whom a race is run."""

    @abstractmethod
    def judge(self, link: Link) -> None:
        """Raises PeerRefused for a link to a host that was not meant; the other addresses are still in the race."""


class Race(Owner):
    """The owner of all links of one dial until one has won and is handed to the runner, in the same turn of the loop,
    so that nothing it says is missed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, runner: Runner) -> None:
        self._loop = loop
        self._context = context
        self._runner = runner
        self._links: dict[Link, asyncio.Future[AbiError | None]] = {}
        """Each with how it left the race."""
        self._won: asyncio.Future[Link] = loop.create_future()
        self.failures: dict[str, AbiError] = {}
        """By address."""

    async def run(self, places: Iterable[str]) -> Link:
        """The open link to whoever answered first. Raises PeerRefused or NodeUnreachable when nobody did rightly."""
        attempts: set[asyncio.Future[Any]] = set()
        try:
            for address in list(places)[:ADDRESSES_MAX]:
                attempt: asyncio.Future[Any] = self._loop.create_task(self._attempt(address))
                attempts.add(attempt)
                await asyncio.wait({attempt, self._won}, timeout=STAGGER_S, return_when=asyncio.FIRST_COMPLETED)
                if self._won.done():
                    break
            pending = set(attempts)
            while pending and not self._won.done():
                _, pending = await asyncio.wait({*pending, self._won}, return_when=asyncio.FIRST_COMPLETED)
                pending.discard(self._won)
        finally:
            for attempt in attempts:
                attempt.cancel()
            for link in [link for link, ended in self._links.items() if not ended.done()]:
                link.abort(PeerRefused("another address was faster", code=Code.DUPLICATE))
        if self._won.done():
            return self._won.result()
        raise worst(self.failures)

    async def _attempt(self, address: str) -> None:
        try:
            host, port = _split(address)
            _, link = await self._loop.create_connection(self._make_link, host, port)
        except AbiError as error:
            self.failures[address] = error
        except OSError as error:
            self.failures[address] = NodeUnreachable(error.strerror or str(error))
        else:
            why = await asyncio.shield(self._links[link])
            if not (self._won.done() and self._won.result() is link):
                self.failures[address] = why or NodeUnreachable("it closed the connection")

    def _make_link(self) -> Link:
        link = Link(self._loop, self, self._context, accepted=False)
        self._links[link] = self._loop.create_future()
        return link

    # The owner of a link.

    def on_secured(self, link: Link) -> None:
        if self._won.done():
            raise PeerRefused("another address was faster", code=Code.DUPLICATE)
        self._runner.judge(link)
        self._won.set_result(link)
        self._links[link].set_result(None)
        link.owner = self._runner
        self._runner.on_secured(link)

    def on_frame(self, link: Link, kind: int, payload: memoryview) -> None:
        """It has won by then, and belongs to the successor."""

    def on_ended(self, link: Link, why: AbiError | None) -> None:
        self._links[link].set_result(why)


def _split(address: str) -> tuple[str, int]:
    try:
        host, port = addresses.split(address)
    except ValueError as error:
        raise UsageError(f"{address!r} is not an address: {error}") from None
    if port is None:
        raise UsageError(f"{address!r} names no port", hint="an address is HOST:PORT, or [IPv6]:PORT")
    return host, port


class NobodyAnswers(NodeUnreachable):
    """At none of the addresses; ``by_address`` says why, of each."""

    by_address: Mapping[str, AbiError] = {}


class AllRefuse(PeerRefused):
    """Who answers refuses; ``by_address`` says what came of each."""

    by_address: Mapping[str, AbiError] = {}


def worst(failures: Mapping[str, AbiError]) -> NobodyAnswers | AllRefuse:
    """One error for a dial that failed everywhere: a host that refuses says more than one that is not there, unless it
    is another one than was meant: a port changes hands. Of dials that failed one after the other, each is told once."""
    by_address: dict[str, AbiError] = {}
    for address, error in failures.items():
        by_address.update(error.by_address if isinstance(error, NobodyAnswers | AllRefuse) else {address: error})
    told = "; ".join(f"{address}: {error.message}" for address, error in by_address.items()) or "there is no address"
    refusals = [error for error in by_address.values() if isinstance(error, PeerRefused)]
    by_somebody_else = [error for error in refusals if error.code in (Code.ITSELF, Code.OTHER_NODE)]
    by_them = [error for error in refusals if error not in by_somebody_else]
    found: NobodyAnswers | AllRefuse
    if by_them or len(by_somebody_else) == len(by_address) > 0:
        first = (by_them or by_somebody_else)[0]
        found = AllRefuse(told, code=first.code, hint=first.hint)
    else:
        found = NobodyAnswers(f"no member answers ({told})", hint="is abid running there, and is its port open?")
    found.by_address = by_address
    return found


def unreachable(places: Sequence[str], timeout_s: float) -> NobodyAnswers:
    """What is raised when the time is over."""
    why = f"no connection within {timeout_s * 1000:.0f} ms"
    found = NobodyAnswers(
        f"{why} (tried {', '.join(places)})",
        hint="is abid running there, and is its port open? network.connection_timeout_ms is the limit",
    )
    found.by_address = {place: NodeUnreachable(why) for place in places}
    return found


def why_at(place: str, error: Exception) -> AbiError:
    """Why a dial of this one address failed, without the address."""
    if isinstance(error, NobodyAnswers | AllRefuse):
        return error.by_address.get(place, error)
    return error if isinstance(error, AbiError) else NodeUnreachable(str(error))
