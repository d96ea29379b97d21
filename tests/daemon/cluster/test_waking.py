"""Members whose daemon starts and who cannot take part: what they say, what they try again, and what they do not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from abi.config import load
from abi.errors import AbiError, ConfigError, NodeUnreachable
from abid import state
from abid.cluster import waking
from abid.cluster.certificates import CertificateError
from abid.cluster.cluster import Cluster
from abid.cluster.credentials import CredentialsDamaged
from abid.cluster.door import Door
from abid.cluster.waking import may_pass
from abid.metrics import exposition, pages
from abid.raft_store import StoreError
from tests.daemon.cluster.hosts import WAIT_S, run
from tests.daemon.test_metrics import status as of_daemon

OPTIONS = {"network.bind": "127.0.0.1", "network.port": 0, "network.discovery_enabled": False}


def made(folder: Path, **options: Any) -> Cluster:
    config = load(None, flags=OPTIONS | {f"network.{name}": value for name, value in options.items()})
    identity = state.next_incarnation(folder)
    return Cluster(asyncio.get_running_loop(), config, identity, "host", folder)


@contextlib.asynccontextmanager
async def woken(folder: Path, **options: Any) -> AsyncIterator[Cluster]:
    """Whatever it is by then."""
    cluster = made(folder, **options)
    try:
        await cluster.open()
        yield cluster
    finally:
        cluster.close()


async def founded(folder: Path) -> int:
    """A member lies on the disk; its port."""
    async with woken(folder) as cluster:
        await cluster.found()
        return cluster.port


async def until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def code_of(cluster: Cluster) -> str:
    with pytest.raises(AbiError) as caught:
        await cluster.create_token(1, 60.0)
    return caught.value.code


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    path.write_bytes(b"\0" * 512 + path.read_bytes()[512:])


DAMAGES = [
    (name, damage)
    for name, damages in {
        "standing.json": (cut, Path.unlink),
        "node.pem": (cut, scribble),
        "secret": (cut, Path.unlink),
        "ca.pem": (cut, scribble, Path.unlink),
        "raft-1.sqlite": (scribble,),
    }.items()
    for damage in damages
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=lambda each: getattr(each, "__name__", each))
def test_a_damaged_file_is_named_with_what_to_do_and_nothing_is_tried_again(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        damage(tmp_path / "cluster" / name)
        async with woken(tmp_path) as cluster:
            told = cluster.status()
            assert (told["joined"], told["leader"], told["role"]) == (True, None, "out")
            assert str(tmp_path / "cluster" / name) in told["failed"]
            assert "start the daemon again" in told["failed_hint"]
            assert cluster._waking._task is None
            assert await code_of(cluster) == "out_of_cluster"
            with pytest.raises(AbiError, match="belongs to a cluster already"):
                await cluster.found()
            with pytest.raises(AbiError, match="out of it"):
                await cluster.leave()
            await cluster.leave(force=True)
            assert (cluster.status()["joined"], cluster.status()["failed"]) == (False, "")

    run(scene())


def test_a_port_that_is_taken_is_tried_again_until_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "AGAIN_MS_MAX", 20)

    async def scene() -> None:
        port = await founded(tmp_path)
        taken = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", port)
        async with woken(tmp_path, port=port) as cluster:
            told = cluster.status()
            assert str(port) in told["failed"]
            assert "tried again by itself" in told["failed_hint"]
            assert await code_of(cluster) == "out_of_cluster"
            taken.close()
            await until(lambda: cluster.status()["leader"])
            assert cluster.status()["failed"] == ""
            assert (await cluster.create_token(1, 60.0))["uses"] == 1

    run(scene())


def test_an_address_to_bind_to_that_is_not_up_is_named(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        async with woken(tmp_path, bind="192.0.2.1") as cluster:
            assert "192.0.2.1" in cluster.status()["failed"]
            assert cluster._waking._task is not None

    run(scene())


def test_an_attempt_that_fails_late_leaves_no_port_open_that_the_next_one_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "AGAIN_MS_MAX", 20)

    async def scene() -> None:
        port = await founded(tmp_path)
        fails = iter([True, True, False])

        def start(self: object) -> None:
            if next(fails, False):
                raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr("abid.cluster.discovery.Discoverer.start", start)
        async with woken(tmp_path, port=port) as cluster:
            assert "no space left" in cluster.status()["failed"]
            await until(lambda: cluster.status()["leader"])

    run(scene())


def test_a_founding_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with woken(tmp_path) as cluster:
            with monkeypatch.context() as patched:

                async def refuse(*_: object, **__: object) -> int:
                    raise ConfigError("port 1 cannot be opened")

                patched.setattr(Door, "listen", refuse)
                with pytest.raises(ConfigError):
                    await cluster.found()
            assert (cluster.status()["joined"], cluster.status()["failed"]) == (False, "")
            assert (await cluster.found())["role"] == "leader"

    run(scene())


def test_who_watches_a_host_that_is_out_of_its_cluster_sees_it(tmp_path: Path) -> None:
    async def scene() -> None:
        await founded(tmp_path)
        cut(tmp_path / "cluster" / "secret")
        async with woken(tmp_path) as cluster:
            ready = pages(of_daemon, cluster.status)["/readyz"]()
            assert (ready.status, ready.text.startswith("out of its cluster: ")) == (503, True)
            lines = exposition(of_daemon(), cluster.status()).splitlines()
            assert "abi_raft_leader_known 0" in lines
            assert not [line for line in lines if line.startswith("abi_certificate")]
            await cluster.leave(force=True)
            assert pages(of_daemon, cluster.status)["/readyz"]().status == 200
            assert "abi_raft_leader_known" not in exposition(of_daemon(), cluster.status())

    run(scene())


def of_store(cause: Exception) -> StoreError:
    error = StoreError("raft-1.sqlite cannot be read")
    error.__cause__ = cause
    return error


def of_sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("said by SQLite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConfigError("port 8081 cannot be opened"), True),
        (NodeUnreachable("nobody answers"), True),
        (OSError(errno.ENOSPC, "no space left on device"), True),
        (of_store(OSError(errno.EACCES, "permission denied")), True),
        (of_store(of_sqlite(sqlite3.SQLITE_FULL)), True),
        (of_store(of_sqlite(sqlite3.SQLITE_IOERR | 2 << 8)), True),
        (of_store(of_sqlite(sqlite3.SQLITE_NOTADB)), False),
        (of_store(of_sqlite(sqlite3.SQLITE_CORRUPT)), False),
        (of_store(ValueError("entry 7 is missing")), False),
        (StoreError("written by a newer abi"), False),
        (CredentialsDamaged("standing.json"), False),
        (CertificateError("of another authority"), False),
        (ssl.SSLError("bad key"), False),
    ],
)
def test_what_may_pass(error: AbiError | OSError, passes: bool) -> None:
    assert may_pass(error) is passes
