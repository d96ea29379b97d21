"""A member that lost one of its files: it says which, takes part in nothing, and does not become a host without a
cluster; where others vote, it is readmitted by itself."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from abi.config import load
from abi.errors import AbiError
from abid import state
from abid.cluster import credentials as stored
from abid.cluster import standing
from abid.cluster.credentials import CredentialsDamaged
from abid.cluster.standing import Standing
from abid.metrics import pages
from abid.network import Network
from abid.state import FILE, StateDamaged
from tests.daemon.cluster.hosts import Ca, run
from tests.daemon.cluster.test_waking import OPTIONS, code_of, founded, until, woken
from tests.daemon.test_metrics import status as of_daemon
from tests.seed.members import Making


def remove(folder: Path) -> None:
    for each in folder.glob("raft-1.sqlite*"):
        each.unlink()


def truncate(folder: Path) -> None:
    (folder / "raft-1.sqlite").write_bytes(b"")


def empty(folder: Path) -> None:
    """The tables are there, and nothing is in them."""
    database = sqlite3.connect(folder / "raft-1.sqlite")
    database.execute("DELETE FROM facts")
    database.execute("DELETE FROM entries")
    database.commit()
    database.close()


def garble(folder: Path) -> None:
    path = folder / "node.pem"
    path.write_bytes(b"\xff\xfe" + path.read_bytes())


@pytest.mark.parametrize("damage", [remove, truncate, empty])
def test_the_only_voter_without_its_log_is_out_of_its_cluster_and_says_what_is_missing(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        damage(tmp_path / "cluster")
        for _ in range(2):  # what the first start leaves behind does not look like a log
            async with woken(tmp_path) as cluster:
                told = cluster.status()
                assert (told["joined"], told["role"], told["leader"]) == (True, "out", None)
                assert f"{tmp_path / 'cluster' / 'raft-1.sqlite'} is missing or empty" in told["failed"]
                assert "put a backup in the place of raft-1.sqlite*" in told["failed_hint"]
                assert pages(of_daemon, cluster.status)["/readyz"]().status == 503
                assert await code_of(cluster) == "out_of_cluster"
                with pytest.raises(AbiError, match=r"out of it: .*raft-1.sqlite is missing or empty"):
                    await cluster.recover(sure=True)
                with pytest.raises(AbiError, match="belongs to a cluster already"):
                    await cluster.found()
                with pytest.raises(AbiError, match="out of it"):
                    await cluster.leave()
                assert cluster.status() == told
        async with woken(tmp_path) as cluster:
            assert (await cluster.leave(force=True))["agreed"] is False
            assert (cluster.status()["joined"], cluster.status()["failed"]) == (False, "")
            assert (await cluster.found())["role"] == "leader"

    run(scene())


def test_a_log_that_is_put_back_is_taken(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        path = tmp_path / "cluster" / "raft-1.sqlite"
        backup = path.read_bytes()
        remove(path.parent)
        async with woken(tmp_path) as cluster:
            assert cluster.status()["failed"]
        remove(path.parent)
        path.write_bytes(backup)
        async with woken(tmp_path) as cluster:
            await until(lambda: cluster.status()["leader"])

    run(scene())


def test_a_log_that_was_lost_under_an_earlier_release_is_not_recovered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which did not note that there was one."""
    monkeypatch.setattr("abid.cluster.recovering.QUORUM_S", 0.05)

    async def scene() -> None:
        await founded(tmp_path)
        folder = tmp_path / "cluster"
        standing.save(folder, standing.load(folder)._replace(took_part=False))
        remove(folder)
        async with woken(tmp_path) as cluster:
            before = cluster.member
            with pytest.raises(AbiError, match=str(folder / "raft-1.sqlite")) as caught:
                await cluster.recover(sure=True)
            assert caught.value.code == "no_facts"
            assert cluster.member is before is not None

    run(scene())


def test_a_member_without_its_certificate_does_not_become_a_host_without_a_cluster(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        path = tmp_path / "cluster" / "node.pem"
        path.unlink()
        config = load(None, flags=OPTIONS)
        identity = state.next_incarnation(tmp_path)
        network = Network(asyncio.get_running_loop(), lambda: config, identity, "host", tmp_path)
        await network.open()
        told = network.status()
        assert (told["joined"], told["role"]) == (True, "out")
        assert f"{path} is damaged or missing" in told["failed"]
        assert "restore it from a backup" in told["failed_hint"]
        with pytest.raises(AbiError, match="belongs to a cluster already"):
            await network.cluster.found()
        await network.cluster.leave(force=True)
        assert network.status()["joined"] is False
        network.close()

    run(scene())


def test_who_lost_its_power_before_it_was_a_member_is_none(tmp_path: Path) -> None:
    """All that a founding writes before the certificate lies there."""

    async def scene() -> None:
        await founded(tmp_path)
        folder = tmp_path / "cluster"
        standing.save(folder, Standing(1, 0, ()))
        (folder / "node.pem").unlink()
        async with woken(tmp_path) as cluster:
            assert (cluster.status()["joined"], cluster.status()["failed"]) == (False, "")
            assert (await cluster.found())["role"] == "leader"

    run(scene())


def test_a_certificate_that_is_no_text_is_named(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        garble(tmp_path / "cluster")
        async with woken(tmp_path) as cluster:
            assert f"{tmp_path / 'cluster' / 'node.pem'} is damaged" in cluster.status()["failed"]
            assert await code_of(cluster) == "out_of_cluster"

    run(scene())


@pytest.mark.parametrize("damage", [garble, lambda folder: (folder / "node.pem").unlink()], ids=["garbled", "gone"])
def test_a_pair_that_cannot_be_read_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """It is read again where this host has to prove who it is."""
    folder = Ca(tmp_path).member("0000000a", name="m").folder
    damage(folder)
    with pytest.raises(CredentialsDamaged, match=r"node\.pem is damaged or missing"):
        stored.member_pair(folder)


def test_an_authority_without_its_certificate_is_named(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    folder = ca.member("0000000a", name="m").folder
    stored.store_authority_key(folder, ca.authority.key_pem())
    (folder / "ca.pem").unlink()
    with pytest.raises(CredentialsDamaged, match=r"ca\.pem is damaged or missing"):
        stored.load_authority(folder)


def test_a_member_that_lost_its_identity_does_not_take_part_under_two_names(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        path = tmp_path / FILE
        before = path.read_text()
        path.unlink()
        async with woken(tmp_path) as cluster:
            told = cluster.status()
            ours = json.loads(before)["node"]
            assert f"node.pem is of node {ours}, and this host is node {cluster.node} by {path}" in told["failed"]
            assert f"`abi network remove {ours}`" in told["failed_hint"]
            assert "restore that file from a backup; then start the daemon again" in told["failed_hint"]
            assert await code_of(cluster) == "out_of_cluster"
        path.write_text(before)
        async with woken(tmp_path) as cluster:
            await until(lambda: cluster.status()["leader"])
        path.unlink()
        async with woken(tmp_path) as cluster:
            await cluster.leave(force=True)
            assert (await cluster.found())["role"] == "leader"

    run(scene())


def test_the_advice_on_a_damaged_identity_says_what_another_one_means(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(StateDamaged) as caught:
        state.next_incarnation(tmp_path)
    assert "a member of a cluster is out of it then" in caught.value.hint
    assert "leave --force" in caught.value.hint


def test_voters_that_were_all_down_readmit_the_one_that_lost_its_log() -> None:
    """None of them remembers what it had promised; it knows itself that it has forgotten."""
    making = Making()
    try:
        members = making.cluster(3)
        lost = members[2]
        number = lost.status()["number"]
        for one in members:
            one.kill()
            one.wait()
        for path in lost.state_dir.glob("cluster/raft-*"):
            path.unlink()
        lost.start()
        told = lost.status()
        assert f"raft-{number}.sqlite is missing or empty" in told["failed"]
        assert "it is readmitted by itself" in lost.run("abi", "network", "status").stdout
        for one in members[:2]:
            one.start()
        told = lost.until(lambda told: not told["failed"] and told["leader"], "it is readmitted")
        assert told["number"] > number
        lost.until(lambda told: len(told["voters"]) == 3, "it votes again")
        assert len(lost.status()["nodes"]) == 3
    finally:
        making.close()


def test_who_does_not_vote_and_lost_its_log_is_readmitted_by_the_only_voter() -> None:
    making = Making()
    try:
        one, two = making.cluster(2)
        number = two.status()["number"]
        for member in (one, two):
            member.kill()
            member.wait()
        for path in two.state_dir.glob("cluster/raft-*"):
            path.unlink()
        for member in (one, two):
            member.start()
        told = two.until(lambda told: not told["failed"] and told["leader"], "it is readmitted")
        assert told["number"] > number
        assert len(told["nodes"]) == 2
    finally:
        making.close()


def test_nobody_readmits_the_only_voter_and_its_recovery_says_what_is_missing() -> None:
    making = Making()
    try:
        one, two = making.cluster(2)
        one.kill()
        one.wait()
        remove(one.state_dir / "cluster")
        one.start()
        two.until(lambda told: all(node["connected"] for node in told["nodes"]), "they are connected")
        for _ in range(2):
            done = one.run("abi", "cluster", "recover", "--yes")
            assert (done.returncode, "raft-1.sqlite is missing or empty" in done.stderr) == (69, True)
            told = one.status()
            assert (told["joined"], told["role"], told["number"]) == (True, "out", 0)
            assert "raft-1.sqlite is missing or empty" in told["failed"]
        assert one.run("abi", "submit", "--", "true").returncode == 0
        left = one.run("abi", "cluster", "leave", "--force")
        assert (left.returncode, "the others have not agreed" in left.stderr) == (0, True)
        assert one.status()["joined"] is False
    finally:
        making.close()
