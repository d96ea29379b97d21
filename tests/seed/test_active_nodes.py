"""The seed's row "List of active nodes": real values, and who was killed leaves the list after its timeout."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from abi.network import NodeInfo, NodeRegistry
from tests.seed.members import Making, Member
from tests.system.harness import Daemon, clean_environment, eventually

DEAD_AFTER_S = 1.0
FASTER = f"""
import functools
from abid.cluster import health
from abid.core.membership.timings import SECOND, Settings
health.Membership = functools.partial(health.Membership, settings=Settings(
    probe_every_ns=SECOND // 10, ask_after_ns=SECOND // 10, help_ns=SECOND // 10, suspect_after_ns=SECOND // 2,
    suspicion_min_ns=int({DEAD_AFTER_S} * SECOND), suspicion_max_ns=2 * SECOND, last_look_ns=SECOND // 2,
))
"""
"""Ten seconds of silence make a host dead; here it is one, by the same rule."""


def registry(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> NodeRegistry:
    monkeypatch.setenv("ABI_SOCKET", str(daemon.runtime_dir / "abid.sock"))
    return NodeRegistry()


def test_the_values_are_this_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nproc` counts. No cards are looked for yet, so nobody has any."""
    daemon = Daemon(cpus=None)
    try:
        (itself,) = registry(daemon, monkeypatch).get_active_nodes()
        told = daemon.json("abi", "status")
        nproc = subprocess.run(["nproc"], capture_output=True, env=clean_environment(), check=True).stdout
        assert itself.cpu_cores == min(int(nproc), -(-told["resources"]["cpus"]["total"] // 1))
        assert itself.cpu_cores >= 1
        assert itself.has_gpu == (told["resources"]["gpus"]["total"] > 0)
        assert (itself.id, itself.name) == (told["node"], told["host"])
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def made() -> Iterator[list[Member]]:
    making = Making()
    try:
        yield making.cluster(2, before=FASTER)
    finally:
        making.close()


@pytest.fixture
def pair(made: list[Member]) -> list[Member]:
    for one in made:
        one.up()
    for one in made:
        one.until(lambda told: all(node["state"] == "alive" for node in told["nodes"]), "both are alive")
    return made


def test_each_says_what_it_has_and_where_it_is(pair: list[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    for member in pair:
        member.until(lambda told: all(node["cpu_cores"] for node in told["nodes"]), "each has said what it has")

        def listed(member: Member = member) -> dict[str, NodeInfo]:
            nodes = {node.id: node for node in registry(member, monkeypatch).get_active_nodes()}
            return nodes if set(nodes) == {one.node for one in pair} else {}

        nodes = eventually(listed, "both are listed")
        for other in pair:
            found = nodes[other.node]
            assert (found.cpu_cores, found.has_gpu) == (1, False)
            assert found.address == f"127.0.0.1:{other.status()['port']}"


def test_a_killed_node_leaves_the_list_after_its_timeout(pair: list[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair

    def is_listed(node: Member) -> bool:
        return node.node in [each.id for each in registry(one, monkeypatch).get_active_nodes()]

    def alive_at() -> float:
        looked_at = time.monotonic()
        return looked_at if one.sees(two)["state"] == "alive" else 0.0

    eventually(lambda: is_listed(two), "it is there")
    seen_at = eventually(alive_at, "it is alive")
    two.kill()
    two.wait()
    eventually(lambda: not is_listed(two), "it is gone")
    assert time.monotonic() - seen_at >= DEAD_AFTER_S
    assert one.sees(two)["state"] == "dead"
    assert is_listed(one)
    eventually(lambda: said_of_the_other(one)[-2:] == ["suspect", "dead"], "it might only have been slow")


def said_of_the_other(member: Member) -> list[str]:
    """The states that the log of one of two members names, in order. A suspicion is short, and looking may miss it."""
    return re.findall(r"member \d+ is (alive|suspect|dead|left)", member.log())
