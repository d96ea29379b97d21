"""What the bench says of its readings: ratios, verdicts, the table and the object of `--json`."""

from __future__ import annotations

import json

import pytest

from abi_cli.bench import lines, summary, table
from abi_cli.bench.child import Reading
from abi_cli.bench.claims import Line, Metric, Setup, gate_least, gate_most, target_least
from abi_cli.bench.contenders import PEERS, Runtime
from abi_cli.bench.peers import Contender
from abi_cli.bench.rounds import Gathered, Readings, gather, rotated


def nothing(runtime: Runtime, setup: Setup) -> dict[str, float]:
    raise NotImplementedError


RATE = Metric("rate", "no-ops", "/s", "more", (gate_least(8, "ppe"), target_least(12, "ppe")))
CALL = Metric("call_us", "sync call", "µs", "less", (gate_most(1.5, "ppe"), target_least(5, "ray"), gate_most(500)))
LINE = Line("both", nothing, (RATE, CALL), peers=("ppe", "ray"))


def conclude(readings: Readings) -> summary.Result:
    return summary.conclude(LINE, Gathered(readings, len(readings["abi"]), 0.0))


def readings() -> Readings:
    return {
        "abi": [Reading({"rate": 100.0, "call_us": 120.0}), Reading({"rate": 50.0, "call_us": 300.0})],
        "ppe": [Reading({"rate": 10.0, "call_us": 100.0}), Reading({"rate": 5.0, "call_us": 200.0})],
        "ray": [Reading({"rate": 1.0, "call_us": 1200.0}), Reading(problem="it hung", left=("raylet",))],
    }


def test_ratios_and_verdicts() -> None:
    rate, call = conclude(readings()).rows
    assert [verdict.value for verdict in rate.verdicts] == [10.0, 10.0]
    assert [verdict.holds for verdict in rate.verdicts] == [True, False]
    # `most` is ours over theirs, `least` theirs over ours: five times faster than Ray.
    assert [verdict.value for verdict in call.verdicts] == [1.35, 10.0, 210.0]
    assert [verdict.holds for verdict in call.verdicts] == [True, True, True]
    assert call.figures["ppe"].times_as_good == pytest.approx(1 / 1.35, rel=0.02)


def test_a_round_that_failed_is_told_and_does_not_count() -> None:
    result = conclude(readings())
    assert result.rows[0].figures["ray"].rounds == (1.0, None)
    assert result.problems == ("ray, round 2: it hung", "ray, round 2: had to be killed afterwards: raylet")


def test_a_peer_that_is_missing_decides_nothing() -> None:
    alone = {"abi": readings()["abi"]}
    verdicts = [verdict.holds for row in conclude(alone).rows for verdict in row.verdicts]
    assert verdicts == [None, None, None, None, True]


def test_our_own_failure_breaks_every_claim() -> None:
    failed = {**readings(), "abi": [Reading(problem="no"), Reading(problem="no")]}
    result = conclude(failed)
    assert summary.count([result], "gate") == {"hold": 0, "do_not": 3, "not_measured": 0}
    assert "failed" in table.Table(["ppe", "ray"]).lines(result)[0]


def test_the_table_names_everything() -> None:
    shown = table.Table(["ppe", "ray"])
    head, rows = shown.head(), shown.lines(conclude(readings()))
    assert "ABI (P99)" in head
    assert "RAY ×" in head
    assert rows[0].split() == ["both", "no-ops", "75/s", "(50)", "7.50/s", "10×", "1/s", "100×", "gate", "≥", "8×",
                               "ppe", "10×", "holds"]  # fmt: skip
    assert "target ≥ 12× ppe" in rows[1]
    assert "DOES NOT" in rows[1]
    assert rows[-1] == "  ! ray, round 2: had to be killed afterwards: raylet"


def test_the_object_is_json_and_complete() -> None:
    told = json.loads(json.dumps(summary.as_object(conclude(readings()))))
    assert told["line"] == "both"
    assert [claim["holds"] for claim in told["metrics"][0]["claims"]] == [True, False]
    assert told["metrics"][1]["figures"]["ray"] == {
        "rounds": [1200.0, None], "median": 1200.0, "p99": 1200.0, "times_as_good": 10.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (251_234, "/s", "251k/s"), (1_670_000, "/s", "1.67M/s"), (5_432, "/s", "5.43k/s"), (12.34, "µs", "12.3 µs"),
        (4_321, "µs", "4.32 ms"), (0.1843, "s", "0.18 s"), (0.0421, "%", "0.042%"), (0, "", "0"),
        (999.9, "B", "1.00k B"),
        (45, "MB", "45 MB"), (-0.31, "s", "-0.31 s"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, unit: str, told: str) -> None:
    assert table.number(value, unit) == told


def test_every_contender_is_first_once() -> None:
    assert [rotated("abc", by) for by in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert rotated([], 3) == []


def test_gather_leaves_out_who_cannot_take_part() -> None:
    contenders = [Contender("abi", ""), Contender("ppe", ""), Contender("ray", "", missing="no"), Contender("pool", "")]
    told: list[str] = []
    found = gather(
        LINE,
        contenders,
        2,
        lambda line, contender: Reading({contender.name: 1.0}),
        lambda _, who: told.append(who.name),
    )
    assert told == ["abi", "ppe", "ppe", "abi"]
    assert {name: len(each) for name, each in found.readings.items()} == {"abi": 2, "ppe": 2}


@pytest.mark.parametrize(
    ("stolen", "kept", "share", "note"),
    [
        ([0.01, 0.02, 0.3], [1, 2], 0.015, None),
        ([0.1, 0.0, 0.01, 0.3], [2, 3], 0.005, "the calmest 2 of 3 rounds"),
        ([0.1, 0.3, 0.2, 0.4, 0.0], [1, 3], 0.15,
         "the calmest 2 of 4 rounds, in which the host still gave 15.0% of the processors to others"),
    ],
)  # fmt: skip
def test_rounds_that_the_host_disturbed_are_made_up_for(
    stolen: list[float], kept: list[int], share: float, note: str | None
) -> None:
    said = iter([0.9, *stolen])  # what was before the first round is no round's
    number = iter(range(1, 9))

    def measure(line: Line, contender: Contender) -> Reading:
        return Reading({"rate": float(next(number)), "call_us": 1.0})

    found = gather(LINE, [Contender("abi", "")], 2, measure, lambda *_: None, lambda: next(said))
    assert [each.metrics["rate"] for each in found.readings["abi"]] == kept
    assert found.stolen == pytest.approx(share)
    assert summary.conclude(LINE, found).notes == (() if note is None else (note,))


@pytest.mark.parametrize("name", lines.NAMES)
def test_every_line_is_in_order(name: str) -> None:
    line = lines.load(name)
    assert line.name == name
    assert set(line.peers) <= set(PEERS)
    for metric in line.metrics:
        assert len(metric.title) < table.WHAT, "it would run into the next column"
        assert {claim.peer for claim in metric.claims} <= {"", *line.peers}


def test_every_figure_of_the_issue_is_a_claim() -> None:
    """The bounds that were promised, read back from the lines: none is forgotten, none was moved."""
    claims = {
        (name, metric.key, table.bound(claim, metric))
        for name in lines.NAMES
        for metric in lines.load(name).metrics
        for claim in metric.claims
    }
    assert claims == {
        ("noops", "tasks_per_s", "gate ≥ 8× ppe"),
        ("noops", "tasks_per_s", "gate ≥ 2× pool"),
        ("noops", "tasks_per_s", "target ≥ 12× ppe"),
        ("noops", "tasks_per_s", "target ≥ 3× pool"),
        ("noops", "tasks_per_s", "target ≥ 50× ray"),
        ("noops", "cpu_us", "gate ≤ 15 µs"),
        ("noops", "cpu_us", "target ≤ 10 µs"),
        ("arguments", "tasks_per_s", "gate ≥ 5× ppe"),
        ("chunked_map", "items_per_s", "target ≥ 1× pool"),
        ("sync_call", "p50_us", "gate ≤ 1.50× ppe"),
        ("sync_call", "p50_us", "target ≤ 1× ppe"),
        ("sync_call", "p50_us", "target ≥ 5× ray"),
        ("sync_call", "p99_over_p50", "gate ≤ 3×"),
        ("deep_queue", "tasks_per_s", "gate ≥ 60k/s"),
        ("deep_queue", "tasks_per_s", "target ≥ 100k/s"),
        ("deep_queue", "bytes_per_task", "gate ≤ 1.50k B"),
        ("deep_queue", "bytes_per_task", "target ≤ 1.00k B"),
        ("deep_queue", "cost_ratio", "gate ≤ 1.50×"),
        ("four_clients", "tasks_per_s", "gate ≥ 60k/s"),
        ("first_result", "seconds", "gate ≤ 0.35 s"),
        ("first_result", "seconds", "target ≤ 0.20 s"),
        ("first_result", "seconds", "target ≥ 12× ray"),
        ("idle", "attached_mb", "target ≥ 12× ray"),
        ("idle", "daemon_mb", "gate ≤ 45 MB"),
        ("idle", "daemon_cpu_percent", "gate ≤ 0.20%"),
        ("status", "over_bare_ms", "gate ≤ 40 ms"),
        ("two_cores", "share", "gate ≥ 0.95×"),
        ("long_among_short", "stranded_percent", "gate ≤ 0%"),
        ("many_workers", "loop_lag_ms", "gate ≤ 20 ms"),
        ("many_workers", "workers", "gate ≥ 128"),
        ("kill_worker", "lost", "gate ≤ 0"),
        ("kill_worker", "beyond_s", "gate ≤ 0.30 s"),
        ("worker_death", "median_ms", "gate ≤ 50 ms"),
    }
