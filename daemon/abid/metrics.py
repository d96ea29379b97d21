"""What the daemon knows of itself, for Prometheus: one row of a table for each metric, read from `abi status`.

The format is the text exposition 0.0.4. Names follow the rules that the public checker holds them to: base units last
(`_seconds`, `_bytes`), `_total` for counters and for nothing else.

**No name, argument or environment of anybody's work is in it**, and so neither are the custom resources, whose names
somebody chose: whoever may watch need not be whoever may read. All label values are words of ours and the version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from abid.web import Page

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
NODE_STATES: Final = ("alive", "suspect", "dead", "stopped", "left", "other_incarnation")
BREAKER_STATES: Final = ("closed", "open", "half-open")
TASK_STATES: Final = ("waiting", "queued", "running", "held")

Status = Mapping[str, Any]
Samples = Iterable[tuple[str, float]]
"""Values, each with the value of the metric's one label ("" where it has none)."""


class Metric(msgspec.Struct, frozen=True):
    """One row. `read` takes its samples from a status; `label` is the name of their label, "" for none."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[Status], Samples]
    label: str = ""


def _one(value: Callable[[Status], float]) -> Callable[[Status], Samples]:
    return lambda status: [("", value(status))]


def _resource(name: str, amount: str) -> Callable[[Status], Samples]:
    return _one(lambda status: status["resources"][name][amount])


def _counts(name: str, words: Iterable[str]) -> Callable[[Status], Samples]:
    return lambda status: [(word, status[name][word]) for word in words]


def _nodes(status: Status) -> Samples:
    found = Counter(node["state"] for node in status["nodes"])
    return [(state, found[state]) for state in NODE_STATES]


def _connected(status: Status) -> Samples:
    return [("", sum(node["connected"] for node in status["nodes"]))]


def _voters_missing(status: Status) -> Samples:
    there = {node["id"] for node in status["nodes"] if node["state"] in ("alive", "suspect")}
    return [("", sum(voter not in there for voter in status["voters"]))]


def _breakers(status: Status) -> Samples:
    found = Counter(node["breaker"]["state"] for node in status["nodes"] if node.get("breaker"))
    return [(state, found[state]) for state in BREAKER_STATES]


METRICS: Final = (
    Metric("abi_build_info", "gauge", "1, labelled with the version.", lambda s: [(s["version"], 1)], "version"),
    Metric("abi_uptime_seconds", "gauge", "Time since the daemon started.", _one(lambda s: s["uptime_s"])),
    Metric("abi_ready", "gauge", "1 if work is accepted, 0 while draining.", _one(lambda s: s["state"] == "ready")),
    Metric(
        "abi_loop_lag_p99_seconds", "gauge", "How late the event loop was, 99th percentile of the last minutes.",
        _one(lambda s: s["loop_lag_ms_p99"] / 1000),
    ),
    Metric("abi_sessions", "gauge", "Programs that are connected or may return.", _one(lambda s: s["sessions"])),
    Metric("abi_workers", "gauge", "Worker processes.", _counts("workers", ("busy", "idle")), "state"),
    Metric(
        "abi_tasks", "gauge",
        "Tasks: waiting for arguments, queued, running or sent to a worker, held (ended, their results wanted).",
        _counts("tasks", TASK_STATES), "state",
    ),
    Metric("abi_tasks_ended_total", "counter", "Tasks that ended, by how.", lambda s: s["ends"].items(), "end"),
    Metric("abi_task_retries_total", "counter", "Starts of tasks after their first.", _one(lambda s: s["retries"])),
    Metric("abi_jobs", "gauge", "Jobs; done ones as long as they are kept.", lambda s: s["jobs"].items(), "state"),
    Metric("abi_cpus", "gauge", "CPUs to share out.", _resource("cpus", "total")),
    Metric("abi_cpus_free", "gauge", "CPUs that no task holds.", _resource("cpus", "free")),
    Metric("abi_memory_bytes", "gauge", "Memory to share out.", _resource("memory", "total")),
    Metric("abi_memory_free_bytes", "gauge", "Memory that no task asked for.", _resource("memory", "free")),
    Metric("abi_gpus", "gauge", "Graphics cards to share out.", _resource("gpus", "total")),
    Metric("abi_gpus_free", "gauge", "Graphics cards that no task holds.", _resource("gpus", "free")),
)  # fmt: skip

NETWORK_METRICS: Final = (
    Metric("abi_network_enabled", "gauge", "1 if this host may join a cluster.", _one(lambda s: s["enabled"])),
    Metric("abi_nodes", "gauge", "Nodes of the cluster, this one among them, as it sees them.", _nodes, "state"),
    Metric("abi_peer_breakers", "gauge", "Circuit breakers, one for each peer.", _breakers, "state"),
)

LEADER_KNOWN: Final = Metric(
    "abi_raft_leader_known", "gauge", "1 if this node knows a leader.", _one(lambda s: bool(s["leader"]))
)
"""Also of a member that is out of its cluster, which knows none, and nothing else."""
CLUSTER_METRICS: Final = (
    Metric("abi_nodes_connected", "gauge", "Nodes that this one has a connection to, itself among them.", _connected),
    Metric("abi_raft_term", "gauge", "The term of the cluster's agreement.", _one(lambda s: s["term"])),
    LEADER_KNOWN,
    Metric("abi_raft_leader", "gauge", "1 if this node is the leader.", _one(lambda s: s["role"] == "leader")),
    Metric("abi_raft_voters", "gauge", "Nodes that vote.", _one(lambda s: len(s["voters"]))),
    Metric(
        "abi_raft_voters_missing", "gauge", "Voters that are not there, for whatever reason.",
        _voters_missing,
    ),
    Metric("abi_raft_committed_index", "gauge", "How far the log is agreed on.", _one(lambda s: s["committed"])),
    Metric("abi_raft_applied_index", "gauge", "How far the log is carried out here.", _one(lambda s: s["applied"])),
    Metric(
        "abi_certificate_expires_timestamp_seconds", "gauge", "When this node's certificate ends, in Unix time.",
        _one(lambda s: s["certificate_ends_ms"] / 1000),
    ),
    Metric(
        "abi_peers_refused_total", "counter", "Who was sent away, by why.",
        lambda s: s["refused"].items(), "reason",
    ),
)  # fmt: skip
"""Of a host that is in a cluster."""


def exposition(status: Status, network: Status | None = None) -> str:
    """The text of `/metrics`, of the words of `abi status` and of `network-status`.

    A peer among the `nodes` of the latter may have a `breaker`: what `Breaker.described` returns.
    """
    lines: list[str] = []
    _write(lines, METRICS, status)
    if network is not None:
        _write(lines, NETWORK_METRICS, network)
        if network["joined"]:
            _write(lines, [LEADER_KNOWN] if network["failed"] else CLUSTER_METRICS, network)
    return "\n".join(lines) + "\n"


def pages(
    status: Callable[[], Status], network: Callable[[], Status | None] = lambda: None
) -> dict[str, Callable[[], Page]]:
    """What is served, by path: `/metrics`; `/healthz`, which answers as long as the loop turns; `/readyz`, which says
    503 while no work is accepted, or while a member is out of its cluster."""

    def ready() -> Page:
        state = status()["state"]
        told = network()
        if state == "ready" and told is not None and told["failed"]:
            return Page(503, f"out of its cluster: {told['failed']}\n")
        return Page(200 if state == "ready" else 503, f"{state}\n")

    return {
        "/metrics": lambda: Page(200, exposition(status(), network()), CONTENT_TYPE),
        "/healthz": lambda: Page(200, "ok\n"),
        "/readyz": ready,
    }


def _write(lines: list[str], metrics: Iterable[Metric], status: Status) -> None:
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for value_of_label, value in metric.read(status):
            label = f'{{{metric.label}="{_escaped(value_of_label)}"}}' if metric.label else ""
            lines.append(f"{metric.name}{label} {_number(value)}")


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(+value)  # of a truth, 1 or 0


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
