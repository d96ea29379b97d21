"""The door to the cluster, while this host is becoming again what it was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from abi.config import load
from abi.errors import AbiError
from abid import state
from abid.cluster import cluster as cluster_module
from abid.control import Answer
from abid.network import CREDENTIALS, Network
from tests.daemon.cluster.hosts import run


class SlowCluster:
    """One that is opened by ``go``, if it can be."""

    def __init__(self, *_: object) -> None:
        self.go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.joined = False

    async def open(self) -> None:
        await self.go
        self.joined = True

    async def name(self, op: str) -> dict[str, Any]:
        if not self.joined:
            raise AbiError("this host belongs to no cluster", code="not_member")
        return {"op": op}

    def status(self) -> dict[str, Any]:
        return {"joined": self.joined}

    def close(self) -> None:
        pass


class Told:
    """An answer, and what was said."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def result(self, words: dict[str, Any]) -> None:
        self.said.append(words)

    def fail(self, error: AbiError) -> None:
        self.said.append(error.code)


def network_of_a_member(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Network, SlowCluster]:
    monkeypatch.setattr(cluster_module, "Cluster", SlowCluster)
    config = load(None, flags={})
    (folder / CREDENTIALS).parent.mkdir()
    (folder / CREDENTIALS).touch()
    network = Network(asyncio.get_running_loop(), lambda: config, state.next_incarnation(folder), "host", folder)
    return network, cast(SlowCluster, network.cluster)


def asked(network: Network, cluster: SlowCluster) -> tuple[list[Any], list[Any]]:
    """What is told of a name, and of the status."""
    name, status = Told(), Told()
    network.answer_later(cast(Answer, name), cluster.name("get"))
    network.answer_with_status(cast(Answer, status))
    return name.said, status.said


async def all_ran() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, ({"op": "get"}, {"joined": True})), (AbiError("no disk"), ("not_member", {"joined": False}))],
)
def test_a_member_does_not_say_that_it_is_none_while_it_becomes_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: AbiError | None, told: Any
) -> None:
    async def scene() -> None:
        network, cluster = network_of_a_member(tmp_path, monkeypatch)
        opening = asyncio.ensure_future(network.open())
        name, status = asked(network, cluster)
        await all_ran()
        assert (name, status) == ([], [])
        if error is None:
            cluster.go.set_result(None)
        else:
            cluster.go.set_exception(error)
        await asyncio.gather(opening, return_exceptions=True)
        await all_ran()
        assert (name, status) == ([told[0]], [told[1]])
        later = asked(network, cluster)[1]
        assert later == [told[1]], "told at once, when it is known"

    run(scene())


@pytest.mark.parametrize("is_closed_first", [True, False])
def test_what_waits_for_it_when_the_daemon_ends_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_closed_first: bool
) -> None:
    async def scene() -> None:
        network, cluster = network_of_a_member(tmp_path, monkeypatch)
        opening = asyncio.ensure_future(network.open())
        name, status = asked(network, cluster)
        await all_ran()
        if is_closed_first:
            network.close()
        opening.cancel()
        await all_ran()
        network.close()
        await all_ran()
        assert (name, status) == (["unreachable"], ["unreachable"])

    run(scene())
