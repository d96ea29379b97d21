"""A certificate that runs out while its host is suspended: the daemon that wakes has it renewed, and goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError, NodeUnreachable
from abid.cluster import credentials as stored
from abid.cluster import joining, renewal
from abid.cluster.authority import CERTIFICATE_S
from abid.cluster.credentials import Credentials
from abid.cluster.member import Member
from abid.cluster.refusal import PeerRefused
from abid.cluster.renewal import Renewal
from abid.core.cluster.facts import Facts
from abid.core.cluster.facts import Member as Known
from tests.daemon.cluster.hosts import Ca, run

NODE = "0000000a"


class Host:
    """A member of this certificate, as far as it matters here."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials, self.folder = credentials, credentials.folder
        self.hints = ("hint:1", "host:1")
        self.used: asyncio.Future[Credentials] = asyncio.get_running_loop().create_future()
        members = {2: Known(2, "0000000b", "b", ("host:1", "host:2"), 0)}
        self.consensus = SimpleNamespace(facts=Facts(members=members))
        self.config = SimpleNamespace(integer=lambda _: 100)
        self.peers = SimpleNamespace(end_outdated=lambda _: None, outdated=[])
        self.asked = 0

    def use(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.used.set_result(credentials)

    async def certify(self, request: bytes) -> bytes:
        self.asked += 1
        raise AbiError("no host leads the cluster just now")


def ended(tmp_path: Path) -> tuple[Ca, Credentials]:
    ca = Ca(tmp_path)
    return ca, ca.member(NODE, now=time.time() - CERTIFICATE_S - 1)


async def renewed(host: Host) -> Credentials:
    one = Renewal(cast(Member, host), asyncio.get_running_loop())
    one.look()
    one.look()
    try:
        async with asyncio.timeout(20):
            return await host.used
    finally:
        one.close()


def test_who_can_sign_signs_for_itself(tmp_path: Path) -> None:
    async def story() -> None:
        ca, credentials = ended(tmp_path)
        stored.store_authority_key(credentials.folder, ca.authority.key_pem())
        host = Host(credentials)
        assert (await renewed(host)).not_after > time.time()
        assert stored.load(credentials.folder) == host.credentials
        assert host.asked == 0, "over a connection with this certificate nobody could be asked"

    run(story())


def test_others_are_asked_until_one_renews_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        ca, credentials = ended(tmp_path)
        fails: list[Exception] = [NodeUnreachable("nobody"), OSError("no route"), PeerRefused("not now")]
        asked: list[tuple[str, ...]] = []

        async def renew(found: Credentials, places: Sequence[str], timeout_s: float) -> Credentials:
            asked.append(tuple(places))
            if fails:
                raise fails.pop()
            return ca.member(NODE)

        monkeypatch.setattr(joining, "renew_ended", renew)
        monkeypatch.setattr(renewal, "ENDED_AGAIN_MS_MAX", 1)
        assert (await renewed(Host(credentials))).not_after > time.time()
        assert asked == [("host:1", "hint:1")] * 4

    run(story())


def test_one_that_is_good_for_days_is_not_renewed_and_one_that_is_due_is_asked_for_as_a_member(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        for age_s, asks in ((0.0, 0), (CERTIFICATE_S * 0.8, 1)):
            host = Host(ca.member(NODE, now=time.time() - age_s))
            one = Renewal(cast(Member, host), asyncio.get_running_loop())
            one.look()
            task: Any = one._task
            if task is not None:
                await asyncio.wait([task])
            one.look()
            assert (host.asked, one._task) == (asks, None), "and not at once again"
            one.close()

    run(story())
