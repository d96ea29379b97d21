"""`abi cluster recover` that fails: this host is the member that it was, on its disk and in its daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from abi.errors import AbiError, ConfigError
from abid.cluster import recovering, waking
from abid.cluster.member import Member
from tests.daemon.cluster.hosts import run
from tests.daemon.cluster.test_waking import founded, until, woken


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As though others voted, and were lost."""

    async def answers(member: Member) -> bool:
        return False

    monkeypatch.setattr(recovering, "_quorum_answers", answers)


def contents(folder: Path) -> dict[str, bytes]:
    """But for the log, which goes on."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("raft-1.")}


@pytest.mark.parametrize("name", ["raft-2.sqlite", "ca.pem.new", "secret.new", "node.pem.new", "standing.json.new"])
def test_a_disk_that_does_not_take_it_leaves_all_as_it_was(tmp_path: Path, name: str) -> None:
    """A folder stands where the file would be written."""

    async def scene() -> None:
        await founded(tmp_path)
        folder = tmp_path / "cluster"
        async with woken(tmp_path) as cluster:
            await until(lambda: cluster.status()["role"] == "leader")
            before, on_disk = cluster.member, contents(folder)
            incarnation = cluster.status()["incarnation"]
            (folder / name).mkdir()
            with pytest.raises(OSError, match=name):
                await cluster.recover(sure=True)
            (folder / name).rmdir()
            assert cluster.member is before is not None
            assert contents(folder) == on_disk
            assert len(before.consensus.facts.members) == 1
            assert (await cluster.create_token(1, 60.0))["uses"] == 1
            assert cluster.status()["incarnation"] == incarnation
            recovered = await cluster.recover(sure=True)
            assert cluster.status()["incarnation"] == recovered["incarnation"] > incarnation
            assert cluster.status()["role"] == "leader"

    run(scene())


def test_an_authority_that_is_damaged_is_found_out_before_anything_ends(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        async with woken(tmp_path) as cluster:
            await until(lambda: cluster.status()["role"] == "leader")
            (tmp_path / "cluster" / "ca.key").write_text("no key")
            with pytest.raises(AbiError):
                await cluster.recover(sure=True)
            assert (await cluster.create_token(1, 60.0))["uses"] == 1

    run(scene())


def test_a_member_that_does_not_come_up_afterwards_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the disk it is recovered."""
    monkeypatch.setattr(waking, "AGAIN_MS_MAX", 20)
    start, fails = Member.start, iter([True, True])

    async def taken(self: Member, *given: object, **named: object) -> int:
        if next(fails, False):
            raise ConfigError("port 1 cannot be opened")
        return await start(self, *given, **named)  # type: ignore[arg-type]

    async def scene() -> None:
        await founded(tmp_path)
        async with woken(tmp_path) as cluster:
            await until(lambda: cluster.status()["role"] == "leader")
            incarnation = cluster.status()["incarnation"]
            monkeypatch.setattr(Member, "start", taken)
            with pytest.raises(ConfigError):
                await cluster.recover(sure=True)
            assert "port 1 cannot be opened" in cluster.status()["failed"]
            await until(lambda: cluster.status()["role"] == "leader")
            assert cluster.status()["incarnation"] > incarnation

    run(scene())
