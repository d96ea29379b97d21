"""configs/alerts.yml: rules that Prometheus takes, about metrics that exist, each with a line of advice."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from abi.wire.schema import EndKind
from abid.metrics import BREAKER_STATES, CLUSTER_METRICS, METRICS, NETWORK_METRICS, NODE_STATES, TASK_STATES
from tests.daemon import plain_yaml

FILE = Path(__file__).parent.parent.parent / "configs" / "alerts.yml"
KNOWN = {metric.name: metric for metric in (*METRICS, *NETWORK_METRICS, *CLUSTER_METRICS)}
LABEL_VALUES = {
    "abi_tasks_ended_total": {kind.name.lower() for kind in EndKind},
    "abi_tasks": set(TASK_STATES),
    "abi_workers": {"busy", "idle"},
    "abi_nodes": set(NODE_STATES),
    "abi_peer_breakers": set(BREAKER_STATES),
}


def rules() -> list[dict[str, Any]]:
    return [rule for group in plain_yaml.read(FILE.read_text())["groups"] for rule in group["rules"]]


def test_groups_and_alerts_have_names_of_their_own() -> None:
    groups = plain_yaml.read(FILE.read_text())["groups"]
    assert all(set(group) == {"name", "rules"} for group in groups)
    for names in ([group["name"] for group in groups], [rule["alert"] for rule in rules()]):
        assert len(names) == len(set(names)) > 2


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_is_whole_and_gives_advice(rule: dict[str, Any]) -> None:
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"Abid[A-Z][A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "advice"}
    assert rule["annotations"]["advice"].endswith(".")
    assert set(re.findall(r"\{\{.*?\}\}", rule["annotations"]["summary"])) <= {
        "{{ $labels.instance }}", "{{ $value }}"
    }  # fmt: skip


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_metric_that_a_rule_names_exists_with_its_label(rule: dict[str, Any]) -> None:
    named = re.findall(r"\b(up|abi_\w+)(?:\{(\w+)=\"([^\"]*)\"\})?", rule["expr"])
    assert named
    for name, label, value in named:
        if name == "up":
            continue  # Prometheus's own, of each job that it scrapes
        assert name in KNOWN
        if label:
            assert label == KNOWN[name].label
            assert value in LABEL_VALUES[name]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rates_are_taken_of_counters_only(rule: dict[str, Any]) -> None:
    of = r"\b(rate|increase|changes|resets)\((\w+)"
    for function, name in re.findall(of, rule["expr"]):
        assert (KNOWN[name].kind == "counter") == (function in ("rate", "increase"))
    for name in re.findall(r"\babi_\w+", rule["expr"]):
        assert KNOWN[name].kind == "gauge" or re.search(rf"\b(rate|increase)\({name}\b", rule["expr"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="the public checker, promtool, is not installed")
def test_the_checker_takes_them() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(FILE)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_the_reader_reads_what_it_should() -> None:
    text = "# why\na:\n  - b: 'it''s: {{ x }}'\n    c: plain text\n\n  - b: x\nd:\n  e: f{g=\"h\"} > 0\n"
    assert plain_yaml.read(text) == {
        "a": [{"b": "it's: {{ x }}", "c": "plain text"}, {"b": "x"}],
        "d": {"e": 'f{g="h"} > 0'},
    }


@pytest.mark.parametrize(
    "text",
    ["a: b: c\n", "a: 'b\n", 'a: "b"\n', "a: [b]\n", "a: {b: c}\n", "a: |\n  b\n", "a: b # c\n", "a: &b c\n", "a:\n",
     "a: b\na: c\n", "a: b\n  c: d\n", "a:\n   b: c\n", "a:\nb: c\n", "  a: b\nc: d\n", "- a\n", "a: `b`\n",
     "\ta: b\n"],
)  # fmt: skip
def test_the_reader_refuses_what_is_outside_of_it(text: str) -> None:
    with pytest.raises(ValueError):
        plain_yaml.read(text)
