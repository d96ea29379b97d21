"""What Prometheus is told: the checker's rules, real values, and nobody's names."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from typing import Any

import pytest

from abi.breaker import Breaker
from abi.wire.schema import EndKind
from abid.metrics import CLUSTER_METRICS, METRICS, NETWORK_METRICS, exposition, pages
from tests.daemon import promlint
from tests.system.harness import Daemon


def status(**changed: Any) -> dict[str, Any]:
    """The words of `abi status`, of a daemon in the middle of its work."""
    return {
        "pid": 4711,
        "version": "0.1.0",
        "node": "a3f1c2d4",
        "host": "secret-host",
        "uptime_s": 12.345,
        "state": "ready",
        "sessions": 2,
        "workers": {"total": 3, "busy": 1, "idle": 2},
        "tasks": {"waiting": 4, "queued": 5, "running": 6, "finished": 21, "held": 7},
        "ends": {kind.name.lower(): number for number, kind in enumerate(EndKind)},
        "retries": 8,
        "resources": {
            "cpus": {"total": 2.0, "free": 0.5},
            "memory": {"total": 8 << 30, "free": 1 << 30},
            "gpus": {"total": 1, "free": 0},
            "custom": {"secret-licence": {"total": 3.0, "free": 1.0}},
        },
        "jobs": {"queued": 1, "running": 2, "done": 3},
        "loop_lag_ms_p99": 1.5,
        "runtime_dir": "/secret/runtime",
        "state_dir": "/secret/state",
        "config_file": "/secret/abid.toml",
        **changed,
    }


def network(**changed: Any) -> dict[str, Any]:
    """The words of `network-status` in a cluster."""
    well, ill = Breaker(), Breaker(failure_threshold=1)
    ill.failed(ill.admit(0), 0)  # type: ignore[arg-type]
    return {
        "enabled": True,
        "port": 8081,
        "node": "a3f1c2d4",
        "joined": True,
        "failed": "",
        "cluster": "secret-cluster",
        "role": "follower",
        "term": 9,
        "leader": "b",
        "voters": ["a3f1c2d4", "b", "c"],
        "applied": 40,
        "committed": 41,
        "certificate_ends_ms": 1_800_000_000_000,
        "refused": {"plain_text": 3, "revoked": 1},
        "nodes": [
            {"id": "a3f1c2d4", "name": "secret-host", "address": "10.9.8.7:8081", "state": "alive", "connected": True},
            {"id": "b", "name": "secret-peer", "state": "alive", "connected": True, "breaker": well.described(1)},
            {"id": "c", "name": "secret-other", "state": "dead", "connected": False, "breaker": ill.described(1)},
        ],
        **changed,
    }


def values(text: str) -> dict[str, float]:
    """Samples by `name` or `name{value of the label}`."""
    return {
        family.name + (f"{{{labels[0][1]}}}" if labels else ""): value
        for family in promlint.parse(text).values()
        for labels, value in family.samples.items()
    }


def test_the_checkers_rules_hold() -> None:
    text = exposition(status(), network())
    assert promlint.problems(text) == []
    assert {family.name for family in promlint.parse(text).values()} == {
        metric.name for metric in (*METRICS, *NETWORK_METRICS, *CLUSTER_METRICS)
    }
    assert all(name.startswith("abi_") for name in promlint.parse(text))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="the public checker, promtool, is not installed")
def test_the_checker_itself_has_nothing_to_say() -> None:
    text = exposition(status(), network())
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("abi_x 1\n", ["no help text", "no type"]),
        ("# HELP abi_x X.\n# TYPE abi_x counter\nabi_x 1\n", ['counter metrics should have "_total" suffix']),
        ("# HELP abi_total X.\n# TYPE abi_total gauge\n", ['non-counter metrics should not have "_total" suffix']),
        ("# HELP abi_lag_milliseconds X.\n# TYPE abi_lag_milliseconds gauge\n", ["use base unit"]),
        ("# HELP abi_age_hours X.\n# TYPE abi_age_hours gauge\n", ["use base unit"]),
        ("# HELP abi_lag_ms X.\n# TYPE abi_lag_ms gauge\n", ["metric names should not contain abbreviated units"]),
        ("# HELP abi_task_count X.\n# TYPE abi_task_count gauge\n", ["suffix of a histogram or summary"]),
        ('# HELP abi_x X.\n# TYPE abi_x gauge\nabi_x{quantile="1"} 1\n', ["label of a histogram or summary"]),
        ("# HELP abi_x_gauge X.\n# TYPE abi_x_gauge gauge\n", ["metric name should not include type"]),
        ("# HELP abi:x X.\n# TYPE abi:x gauge\n", ["metric names should not contain ':'"]),
        ("# HELP abi_aB X.\n# TYPE abi_aB gauge\n", ["names should be in 'snake_case'"]),
    ],
)
def test_our_copy_of_the_rules_finds_what_they_forbid(text: str, said: list[str]) -> None:
    assert [problem.partition(" ")[2] for problem in promlint.problems(text)] == said


@pytest.mark.parametrize(
    "text",
    ["abi_x 1", "abi_x\n", "abi_x one\n", 'abi_x{a="b} 1\n', "abi_x{a=b} 1\n", 'abi_x{a="\\t"} 1\n',
     "abi_x 1\nabi_x 2\n", "a 1\nb 1\na{c=\"d\"} 1\n", "abi_x 1\n# HELP abi_x X.\n", "9x 1\n"],
)  # fmt: skip
def test_our_copy_of_the_format_finds_what_it_forbids(text: str) -> None:
    with pytest.raises(ValueError):
        promlint.parse(text)


def test_every_value_is_the_one_of_the_status() -> None:
    found = values(exposition(status(), network()))
    assert found == {
        "abi_build_info{0.1.0}": 1,
        "abi_uptime_seconds": 12.345,
        "abi_ready": 1,
        "abi_loop_lag_p99_seconds": 0.0015,
        "abi_sessions": 2,
        "abi_workers{busy}": 1,
        "abi_workers{idle}": 2,
        "abi_tasks{waiting}": 4,
        "abi_tasks{queued}": 5,
        "abi_tasks{running}": 6,
        "abi_tasks{held}": 7,
        **{f"abi_tasks_ended_total{{{kind.name.lower()}}}": number for number, kind in enumerate(EndKind)},
        "abi_task_retries_total": 8,
        "abi_jobs{queued}": 1,
        "abi_jobs{running}": 2,
        "abi_jobs{done}": 3,
        "abi_cpus": 2,
        "abi_cpus_free": 0.5,
        "abi_memory_bytes": 8 << 30,
        "abi_memory_free_bytes": 1 << 30,
        "abi_gpus": 1,
        "abi_gpus_free": 0,
        "abi_network_enabled": 1,
        "abi_nodes{alive}": 2,
        "abi_nodes{suspect}": 0,
        "abi_nodes{dead}": 1,
        "abi_nodes{stopped}": 0,
        "abi_nodes{left}": 0,
        "abi_nodes{other_incarnation}": 0,
        "abi_peer_breakers{closed}": 1,
        "abi_peer_breakers{open}": 1,
        "abi_peer_breakers{half-open}": 0,
        "abi_raft_term": 9,
        "abi_raft_leader_known": 1,
        "abi_raft_leader": 0,
        "abi_raft_voters": 3,
        "abi_raft_voters_missing": 1,
        "abi_raft_applied_index": 40,
        "abi_raft_committed_index": 41,
        "abi_nodes_connected": 2,
        "abi_certificate_expires_timestamp_seconds": 1_800_000_000,
        "abi_peers_refused_total{plain_text}": 3,
        "abi_peers_refused_total{revoked}": 1,
    }


def test_no_names_arguments_or_environments() -> None:
    text = exposition(status(), network())
    assert "secret" not in text
    assert "a3f1c2d4" not in text
    assert "10.9.8.7" not in text
    # Not even where a label could carry one: every value of a label is a word of ours, or the version.
    labels = set(re.findall(r'="([^"]*)"', text))
    words = {"0.1.0", "busy", "idle", "waiting", "queued", "running", "held", "done", "half-open", "open", "closed"}
    words |= {"alive", "suspect", "dead", "stopped", "left", "other_incarnation", "plain_text", "revoked"}
    assert labels == words | {kind.name.lower() for kind in EndKind}


def test_alone_there_is_nothing_of_a_cluster() -> None:
    assert not [name for name in values(exposition(status())) if re.match("abi_(network|nodes|peer|raft)", name)]
    unjoined = values(exposition(status(), {"enabled": False, "joined": False, "nodes": []}))
    assert unjoined["abi_network_enabled"] == 0
    assert unjoined["abi_nodes{alive}"] == 0
    assert not [name for name in unjoined if name.startswith("abi_raft")]


def test_no_leader() -> None:
    for nobody in (None, ""):
        found = values(exposition(status(), network(leader=nobody, role="candidate")))
        assert (found["abi_raft_leader_known"], found["abi_raft_leader"]) == (0, 0)
    assert values(exposition(status(), network(role="leader")))["abi_raft_leader"] == 1


def test_ready_or_not() -> None:
    words = status()
    served = pages(lambda: words)
    assert served["/readyz"]().status == 200
    assert served["/healthz"]().status == 200
    words["state"] = "draining"
    assert (served["/readyz"]().status, served["/readyz"]().text) == (503, "draining\n")
    assert served["/healthz"]().status == 200
    assert values(served["/metrics"]().text)["abi_ready"] == 0


def test_the_words_of_a_real_daemon() -> None:
    daemon = Daemon(cpus=2, ABI_NETWORK_PORT="0", ABI_NETWORK_BIND="127.0.0.1")
    try:
        assert daemon.run("abi", "submit", "--", "true").returncode == 0
        alone = exposition(daemon.json("abi", "status"), daemon.json("abi", "network", "status"))
        assert promlint.problems(alone) == []
        found = values(alone)
        assert (found["abi_cpus"], found["abi_jobs{done}"], found["abi_tasks_ended_total{ok}"]) == (2, 1, 1)
        assert (found["abi_network_enabled"], found["abi_nodes{alive}"], "abi_raft_term" in found) == (1, 1, False)
        assert daemon.run("abi", "cluster", "init").returncode == 0
        founded = exposition(daemon.json("abi", "status"), daemon.json("abi", "network", "status"))
        assert promlint.problems(founded) == []
        found = values(founded)
        assert (found["abi_nodes{alive}"], found["abi_raft_voters"], found["abi_nodes_connected"]) == (1, 1, 1)
        assert found["abi_raft_committed_index"] >= found["abi_raft_applied_index"] > 0
        # Thirty days, as a certificate lives.
        assert 29 * 86_400 < found["abi_certificate_expires_timestamp_seconds"] - time.time() <= 30 * 86_400
    finally:
        daemon.close()
