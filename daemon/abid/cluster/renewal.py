"""That this host's certificate does not run out while it is up; connections made with one that did are ended.

A connection lasts as long as the certificates with which it was made: renewed ones are shown only over another one. So
after a renewal the connections are made anew, one at a time and by lot, in the ten days before the others would end
them as if something were wrong.

A host that was suspended past that end is out, and wakes in the middle of its daemon's life. It asks as one does that
starts so (``renewed_if_ended``), until somebody has renewed it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from abi.backoff import Backoff
from abi.errors import AbiError
from abid.cluster import admission, credentials, finding, joining
from abid.cluster.authority import is_renewal_due
from abid.cluster.credentials import Credentials

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""Between two looks at the calendar: clocks jump, hosts sleep. At one connection a look, a thousand are made anew in
a day."""
AGAIN_S: Final = 600.0
"""After an attempt that failed; there are ten days for it."""
ENDED_AGAIN_MS_MAX: Final = 60_000
"""When there are none left."""


class Renewal:
    """Looks once a minute; renews when two thirds of the time are over."""

    def __init__(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        self._member = member
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._lots = random.SystemRandom()

    def look(self) -> None:
        """What the calendar asks for now, and again in a minute."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LOOK_S, self.look)
        now, own = time.time(), self._member.credentials
        self._member.peers.end_outdated(now)
        outdated = self._member.peers.outdated
        if outdated:
            self._lots.choice(outdated).make_anew()
        if self._task is not None:
            return
        if now >= own.not_after:
            self._begin(self._renew_ended())
        elif is_renewal_due(own.not_before, own.not_after, now) and self._loop.time() >= self._not_before:
            self._not_before = self._loop.time() + AGAIN_S
            self._begin(self._renew())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._on_done)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the certificate could not be renewed, and ends at %.0f: %s", self._not_after, error)

    @property
    def _not_after(self) -> float:
        return self._member.credentials.not_after

    async def _renew(self) -> None:
        member = self._member
        own = member.credentials
        key, request = await asyncio.to_thread(credentials.next_request, own.folder, own.subject)
        certificate = await member.certify(request)
        found = await asyncio.to_thread(
            credentials.store_member, own.folder, own.authority_certificate, certificate, key, own.secret
        )
        member.use(found)
        log.info("the certificate was renewed")

    async def _renew_ended(self) -> None:
        member, pauses, retry = self._member, Backoff(cap_ms=ENDED_AGAIN_MS_MAX), 0
        while True:
            timeout_s = member.config.integer("network.connection_timeout_ms") / 1000
            try:
                member.use(await renewed_if_ended(member.credentials, self._places(), timeout_s))
            except (AbiError, OSError) as error:
                log.warning("the certificate of this host has run out, and was not renewed: %s", error)
            else:
                log.info("the certificate was renewed, after its end")
                return
            await asyncio.sleep(pauses.wait_ns(retry, self._lots.random()) / 1e9)
            retry += 1

    def _places(self) -> tuple[str, ...]:
        """Where members were met, and then where they are said to be."""
        member = self._member
        told = (place for other in member.consensus.facts.members.values() for place in other.addresses[:1])
        return tuple(dict.fromkeys((*finding.last_met(member.folder), *told, *member.hints)))


async def renewed_if_ended(found: Credentials, places: tuple[str, ...], timeout_s: float) -> Credentials:
    """At a start: a certificate that ran out while this host slept is renewed first, once, with proof of its key. Who
    holds the authority's key signs for itself.

    Raises PeerRefused, NodeUnreachable, CertificateError, OSError.
    """
    if time.time() < found.not_after:
        return found
    authority = credentials.load_authority(found.folder)
    if authority is not None:
        key, request = await asyncio.to_thread(credentials.next_request, found.folder, found.subject)
        certificate = authority.sign(request, found.subject, time.time())
        return await asyncio.to_thread(
            credentials.store_member, found.folder, authority.certificate, certificate, key, found.secret
        )
    log.warning("the certificate of this host ran out; asking for one renewal")
    return await joining.renew_ended(found, places, timeout_s)


async def certificate_of(member: Member, request: bytes) -> bytes:
    """For ourselves, from whoever leads. Raises AbiError."""
    leader = member.node_of(member.consensus.leader)
    if leader is None:
        raise AbiError("no host leads the cluster just now", code="unavailable")
    peer = await member.reach.peer(leader)
    said = await member.requests.ask(peer, admission.RENEW_OWN, {"request": request}, member.request_timeout_s())
    return bytes(said["certificate"])
