"""What a leader sees to, of members that do not answer."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError, NodeUnreachable
from abid.cluster import credentials, leading
from abid.cluster.authority import Authority
from abid.cluster.credentials import Credentials
from abid.cluster.leading import Leading
from abid.cluster.member import Member
from abid.cluster.peer import Peer
from abid.core.raft.configuration import Configuration
from tests.daemon.cluster.hosts import Ca, run


class Host:
    """A leader, as far as it matters here: of three voters, none of which can be reached."""

    number = term = leader = 1
    is_leader = may_change = True
    configuration = Configuration(voters=frozenset({1, 2, 3}))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.members = {1: "a", 2: "b", 3: "c"}
        self.past: dict[int, str] = {}
        self.consensus = self.raft = self.facts = self.reach = self
        self.dialled: list[str] = []
        self.often = asyncio.Event()
        self.credentials: Credentials
        self.authority: Authority

    async def peer(self, node: str) -> Any:
        self.dialled.append(node)
        if len(self.dialled) == 6:
            self.often.set()
        raise NodeUnreachable("connection refused")

    def node_of(self, number: int) -> str | None:
        return self.members.get(number)

    def known_as(self, number: int) -> str | None:
        return self.node_of(number) or self.past.get(number)

    def is_alive(self, number: int) -> bool:
        return True

    def caught_up(self, number: int) -> bool:
        return False


def test_the_authority_s_key_is_stored_once_and_the_loop_goes_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new leader hands it out in its first moments, when another election is what a slow disk must not cost."""
    ca, disk = Ca(tmp_path), threading.Event()
    own = ca.member("00000001")
    monkeypatch.setattr(os, "fsync", lambda _: disk.wait(60) or pytest.fail("the loop stood still for the disk"))

    async def scene() -> None:
        host = Host(own.folder)
        leads = Leading(cast(Member, host), asyncio.get_running_loop())
        host.credentials, leader, body = own, cast(Peer, SimpleNamespace(node="a")), {"key": ca.authority.key_pem()}
        said = [asyncio.ensure_future(leads.on_key(leader, body)) for _ in range(2)]
        asyncio.get_running_loop().call_soon(disk.set)
        assert await asyncio.gather(*said) == [{}, {}]
        assert (own.folder / credentials.AUTHORITY_KEY).read_bytes() == ca.authority.key_pem()
        monkeypatch.setattr(credentials, "write_private", lambda *_: pytest.fail("it was there"))
        await leads.on_key(leader, body)
        assert host.authority.key_pem() == ca.authority.key_pem()

    run(scene())


def test_also_a_leader_that_was_removed_hands_out_the_key_and_nobody_else(tmp_path: Path) -> None:
    """The only voter was removed before the first other host had the key: nobody else could be made to vote."""
    ca = Ca(tmp_path)

    async def scene() -> None:
        host = Host(tmp_path)
        host.credentials = ca.member("0000000b")
        host.past = {1: host.members.pop(1)}
        leads, body = (
            Leading(cast(Member, host), asyncio.get_running_loop()),
            {"key": ca.authority.key_pem(), "term": 1},
        )
        with pytest.raises(AbiError, match="only the leader"):
            await leads.on_key(cast(Peer, SimpleNamespace(node="c")), body)
        assert await leads.on_key(cast(Peer, SimpleNamespace(node="a")), body) == {}

    run(scene())


def test_a_member_that_cannot_be_reached_is_not_dialled_with_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = Ca(tmp_path)
    monkeypatch.setattr(credentials, "load_authority", lambda _: ca.authority)
    monkeypatch.setattr(leading, "LOOK_S", 3600.0)

    async def scene() -> None:
        host = Host(tmp_path)
        leads = Leading(cast(Member, host), asyncio.get_running_loop())
        for _ in range(20):
            leads.look()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert host.dialled == ["b", "c"]
        host.is_leader = False
        leads.look()
        host.is_leader = True
        leads.look()
        await asyncio.sleep(0)
        assert host.dialled == ["b", "c", "b", "c"], "in another term of ours at once"
        leads.close()

    run(scene())


def test_and_is_dialled_again_a_little_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Ca(tmp_path)
    monkeypatch.setattr(credentials, "load_authority", lambda _: ca.authority)
    monkeypatch.setattr(leading, "LOOK_S", 0.01)

    async def scene() -> None:
        host = Host(tmp_path)
        leads = Leading(cast(Member, host), asyncio.get_running_loop())
        leads.look()
        await asyncio.wait_for(host.often.wait(), 10)
        leads.close()

    run(scene())


@pytest.mark.parametrize(("lasts_s", "lines"), [(60.0, 0), (0.005, 2)])
def test_only_what_lasts_is_worth_a_line_and_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lasts_s: float,
    lines: int,
) -> None:
    """Who joined a moment ago has not opened its door yet."""
    ca = Ca(tmp_path)
    monkeypatch.setattr(credentials, "load_authority", lambda _: ca.authority)
    monkeypatch.setattr(leading, "LOOK_S", 0.01)
    monkeypatch.setattr(leading, "LASTS_S", lasts_s)
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        host = Host(tmp_path)
        leads = Leading(cast(Member, host), asyncio.get_running_loop())
        leads.look()
        await asyncio.wait_for(host.often.wait(), 10)
        leads.close()

    run(scene())
    said = [record.getMessage() for record in caplog.records if "authority's key" in record.getMessage()]
    assert len(said) == lines, "one for each of the two others"


def test_a_key_that_cannot_be_read_is_read_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is offered again that was not taken; no task ends in an error that nobody hears of."""
    ca, fails = Ca(tmp_path), [OSError("no more files"), OSError("no more files")]

    def load(_: Path) -> Authority:
        if fails:
            raise fails.pop()
        return ca.authority

    monkeypatch.setattr(credentials, "load_authority", load)
    monkeypatch.setattr(leading, "LOOK_S", 0.01)

    async def scene() -> None:
        seen: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        host = Host(tmp_path)
        leads = Leading(cast(Member, host), asyncio.get_running_loop())
        leads.look()
        await asyncio.wait_for(host.often.wait(), 10)
        leads.close()
        gc.collect()
        assert (fails, seen) == ([], [])

    run(scene())
