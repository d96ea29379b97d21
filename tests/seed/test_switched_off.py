"""The seed's row "The network can be switched off", and `NetworkDisabled`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from abi.errors import NetworkDisabled
from abi.network import NodeRegistry
from tests.ports import free_tcp_port
from tests.seed.members import Making, Member, listening

TOKEN = "x"
OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("cluster-init", {}),
    ("cluster-join", {"token": TOKEN}),
    ("cluster-token", {}),
    ("cluster-leave", {}),
    ("network-register", {"host": "10.9.8.7"}),
    ("network-registered", {}),
    ("network-unregister", {"host": "10.9.8.7"}),
    ("network-remove", {"target": "a3f1"}),
    ("cluster-tokens", {}),
    ("cluster-token-revoke", {"target": "0a0b0c0d"}),
    ("name-get", {"name": "n"}),
]


@pytest.fixture(scope="module", params=["variable", "file"])
def off(request: pytest.FixtureRequest) -> Iterator[Member]:
    """Once by `ABI_NETWORK_ENABLED`, once by the configuration's file."""
    options, environment = f"port = {free_tcp_port()}\n", {}
    if request.param == "variable":
        environment["ABI_NETWORK_ENABLED"] = "false"
    else:
        options += "enabled = false\n"
    member = Member(options, **environment)
    yield member
    member.close()


@pytest.mark.parametrize(("op", "words"), OPERATIONS, ids=[op for op, _ in OPERATIONS])
def test_network_disabled_is_raised_by_whatever_names_another_node(off: Member, op: str, words: dict[str, Any]) -> None:
    with pytest.raises(NetworkDisabled, match="switched off") as caught:
        off.ask(op, **words)
    assert "network.enabled" in caught.value.hint
    assert listening(off.pid) == set(), "no port is open, before or after"


def test_it_says_disabled_and_how_to_enable_it(off: Member) -> None:
    said = off.run("abi", "network", "status").stdout
    assert said.startswith("the network is disabled: ")
    assert "network.enabled = true" in said


@pytest.mark.parametrize(
    "command",
    [("cluster", "init"), ("network", "register", "--host", "10.9.8.7")],
    ids=" ".join,
)
def test_a_command_says_so_on_stderr_and_fails(off: Member, command: tuple[str, ...]) -> None:
    done = off.run("abi", *command, "--json")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert json.loads(done.stderr)["error"]["code"] == "network_disabled"


def test_python_is_told_too(off: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABI_SOCKET", str(off.runtime_dir / "abid.sock"))
    registry = NodeRegistry()
    with pytest.raises(NetworkDisabled):
        registry.start_discovery()
    assert [node.id for node in registry.get_active_nodes()] == [off.node]


def test_a_member_that_is_switched_off_opens_nothing_and_is_one_again_when_switched_on(making: Making) -> None:
    (member,) = making.cluster(1)
    assert listening(member.pid)
    member.restart("enabled = false\n")
    assert listening(member.pid) == set()
    with pytest.raises(NetworkDisabled):
        member.ask("name-get", name="n")
    member.restart("port = 0\ndiscovery_enabled = false\n")
    assert member.status()["joined"]
