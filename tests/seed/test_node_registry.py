"""The seed's rows "Node registry", "Discovery starts" and "List of active nodes", as seen from Python."""

from __future__ import annotations

from typing import Any

import pytest

from abi.errors import DaemonUnreachable, NetworkDisabled, ProtocolError, UsageError
from abi.network import NodeInfo, NodeRegistry
from tests.system.harness import Daemon

NODES: list[dict[str, Any]] = [
    {"id": "a1", "name": "one", "cpu_cores": 8, "has_gpu": True, "address": "10.0.0.1:8081", "state": "alive"},
    {"id": "b2", "name": "two", "cpu_cores": 2, "has_gpu": False, "address": "10.0.0.2:8081", "state": "suspect"},
    {"id": "c3", "name": "three", "cpu_cores": 2, "has_gpu": False, "address": "10.0.0.3:8081", "state": "dead"},
    {"id": "d4", "name": "four", "cpu_cores": 2, "has_gpu": False, "address": "10.0.0.4:8081", "state": "left"},
    {"id": "e5", "name": "five", "cpu_cores": 2, "has_gpu": False, "address": "10.0.0.5:8081", "state": "drowsy"},
]
STATUS: dict[str, Any] = {
    "enabled": True,
    "port": 8081,
    "discovery_enabled": True,
    "broadcast_interval_ms": 5000,
    "nodes": NODES,
    "term": 3,  # what a view does not look at may be there
}


def answer(scripted: Any, **changed: Any) -> None:
    scripted.on("network-status", {"result": {**STATUS, **changed}})


def test_the_seeds_values_are_those_of_a_daemon_as_it_comes(scripted: Any) -> None:
    answer(scripted)
    registry = NodeRegistry(port=8081, discovery_enabled=True, broadcast_interval_ms=5000)
    assert repr(registry) == "NodeRegistry(port=8081, discovery_enabled=True, broadcast_interval_ms=5000)"
    assert scripted.requests == [{"id": 1, "op": "network-status"}]


def test_what_is_not_given_is_taken_from_the_daemon(scripted: Any) -> None:
    answer(scripted, port=9000, discovery_enabled=False, broadcast_interval_ms=100)
    registry = NodeRegistry()
    assert (registry.port, registry.discovery_enabled, registry.broadcast_interval_ms) == (9000, False, 100)


@pytest.mark.parametrize(
    ("name", "wanted", "has"),
    [("port", 8081, 9000), ("discovery_enabled", True, False), ("broadcast_interval_ms", 5000, 250)],
)
def test_a_value_that_differs_from_the_running_daemons_names_both(
    scripted: Any, name: str, wanted: object, has: object
) -> None:
    answer(scripted, **{name: has})
    with pytest.raises(ValueError, match=f"{name}={wanted!r} was asked for.* runs with {name}={has!r}"):
        NodeRegistry(**{name: wanted})  # type: ignore[arg-type]


def test_a_port_that_moved_on_since_another_daemon_has_it_is_none_that_differs(scripted: Any) -> None:
    answer(scripted, port=8082, configured_port=8081)
    assert NodeRegistry(port=8081).port == 8082
    assert NodeRegistry(port=8082).port == 8082
    with pytest.raises(ValueError, match="port=8083 was asked for"):
        NodeRegistry(port=8083)


def test_a_node_that_has_said_nothing_yet_counts_as_having_nothing(scripted: Any) -> None:
    answer(scripted, nodes=[{**NODES[0], "cpu_cores": None, "has_gpu": None}])
    assert NodeRegistry().get_active_nodes() == [NodeInfo("a1", 0, False, "one", "10.0.0.1:8081", "alive")]


def test_a_daemon_that_was_started_anew_with_another_value_is_noticed(scripted: Any) -> None:
    answer(scripted)
    registry = NodeRegistry(port=8081)
    answer(scripted, port=8082)
    with pytest.raises(ValueError, match="port=8082"):
        registry.get_active_nodes()


def test_active_nodes_are_those_that_neither_died_nor_left(scripted: Any) -> None:
    answer(scripted)
    nodes = NodeRegistry().get_active_nodes()
    assert nodes[0] == NodeInfo("a1", 8, True, "one", "10.0.0.1:8081", "alive")
    assert [(node.id, node.state) for node in nodes] == [("a1", "alive"), ("b2", "suspect"), ("e5", "drowsy")]


def test_past_fault_a_registry_that_lived_in_its_callers_process(scripted: Any) -> None:
    """A second registry, and the same one later, show what the daemon knows by then."""
    answer(scripted, nodes=NODES[:1])
    registry = NodeRegistry()
    answer(scripted, nodes=NODES[:2])
    assert [len(each.get_active_nodes()) for each in (registry, NodeRegistry())] == [2, 2]


def test_discovery_is_the_daemons_and_starting_it_twice_is_no_fault(scripted: Any) -> None:
    answer(scripted)
    registry = NodeRegistry()
    registry.start_discovery()
    registry.start_discovery()
    assert {request["op"] for request in scripted.requests} == {"network-status"}


def test_network_switched_off(scripted: Any) -> None:
    answer(scripted, enabled=False, nodes=NODES[:1])
    registry = NodeRegistry()
    with pytest.raises(NetworkDisabled, match="switched off") as caught:
        registry.start_discovery()
    assert "ABI_NETWORK_ENABLED=true" in caught.value.hint
    assert [node.id for node in registry.get_active_nodes()] == ["a1"]


def test_discovery_switched_off(scripted: Any) -> None:
    answer(scripted, discovery_enabled=False)
    with pytest.raises(NetworkDisabled, match="discovery is switched off") as caught:
        NodeRegistry(discovery_enabled=False).start_discovery()
    assert "abi network register" in caught.value.hint


def test_a_real_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(config="[network]\nport = 9000\nbroadcast_interval_ms = 250\n", ABI_NETWORK_ENABLED="false")
    try:
        monkeypatch.delenv("ABI_SOCKET", raising=False)
        monkeypatch.setenv("ABI_RUNTIME_DIR", str(daemon.runtime_dir))
        registry = NodeRegistry(port=9000, discovery_enabled=True)
        assert registry.broadcast_interval_ms == 250
        with pytest.raises(ValueError, match=r"port=8081 was asked for.* runs with port=9000"):
            NodeRegistry(port=8081)
        with pytest.raises(NetworkDisabled):
            registry.start_discovery()
    finally:
        daemon.close()


def test_no_daemon(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABI_SOCKET", raising=False)
    monkeypatch.setenv("ABI_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(DaemonUnreachable):
        NodeRegistry()


@pytest.mark.parametrize(
    "wrong", [{"port": "8081"}, {"nodes": None}, {"nodes": [{"id": "a1"}]}, {"nodes": [{**NODES[0], "cpu_cores": "8"}]}]
)
def test_an_answer_that_cannot_be_read(scripted: Any, wrong: dict[str, object]) -> None:
    answer(scripted, **wrong)
    with pytest.raises(ProtocolError, match="network-status cannot be read"):
        NodeRegistry()


def test_a_daemon_that_knows_no_network(scripted: Any) -> None:
    scripted.on("network-status", {"error": {"code": "usage", "message": "there is no operation 'network-status'"}})
    with pytest.raises(UsageError, match="no operation"):
        NodeRegistry()
