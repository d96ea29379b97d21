"""./dev torture cluster: its figures, its words, and each scenario about leaders at its smallest.

One fleet serves all scenarios here, each of which leaves it whole. Times are told and not held: the suite runs beside
itself on a busy machine, and the torture's own run holds them on a quiet one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

from abid.cluster.link import UNACKNOWLEDGED_MS_MAX
from tests.hosts import kernel
from tests.torture import cluster, leaders, planted
from tests.torture.cluster import Outcome, main, play
from tests.torture.figures import Figure, percentile, seen, table
from tests.torture.fleet import Fleet, why_not_settled
from tests.torture.scenario import Options, Scenario

STOPPED_S = 1.5
"""An election takes half a second; how long the leader sleeps after it makes no difference to what it must not do."""


@pytest.fixture(scope="module")
def fleet(needs_hosts: None) -> Iterator[Fleet]:
    with Fleet(len(leaders.MEMBERS) + 1) as made:
        made.form(leaders.MEMBERS)
        yield made


def options(times: int) -> Options:
    return Options(times, 0, 1, print)


def wrong(figures: list[Figure]) -> list[Figure]:
    assert any(figure.bound is not None and figure.unit == "" for figure in figures), "what is right is counted"
    return [figure for figure in figures if figure.unit != "s" and not figure.holds]


def test_a_leader_is_killed(fleet: Fleet) -> None:
    assert wrong(leaders.lose(fleet, options(1), fleet.kill)) == []


def test_a_leader_loses_its_power(fleet: Fleet) -> None:
    """And who asked it just then does not wait until its connection is given up."""
    figures = leaders.lose(fleet, options(1), fleet.power_off)
    assert wrong(figures) == []
    (written,) = [figure for figure in figures if figure.name == leaders.WRITTEN_WORST]
    assert written.value < UNACKNOWLEDGED_MS_MAX / 1000


def test_a_leader_is_stopped(fleet: Fleet) -> None:
    assert wrong(leaders.stop(fleet, options(1), STOPPED_S)) == []


def test_everybody_is_killed(fleet: Fleet) -> None:
    """Twice: the token of the first turn is used in the second."""
    assert wrong(leaders.kill_all(fleet, options(2))) == []


# --- what a settled cluster is, with a word wrong at a time -----------------------------------------------------------

NODES = ["aa", "bb", "cc"]


def status(number: int) -> dict[str, Any]:
    nodes = [{"id": node, "connected": True, "state": "alive"} for node in NODES]
    role = "leader" if number == 0 else "follower"
    words = {"joined": True, "role": role, "leader": "aa", "term": 3, "applied": 7, "committed": 7}
    return {**words, "nodes": nodes, "voters": list(NODES)}


def test_what_is_settled_is_called_so() -> None:
    assert why_not_settled(NODES, [status(number) for number in range(3)]) == ""


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        ("joined", False, "no member"),
        ("leader", "bb", "follows bb"),
        ("leader", None, "follows None"),
        ("term", 4, "in term 4"),
        ("applied", 6, "6 of 7"),
        ("voters", ["aa", "bb"], "voters"),
        ("nodes", [{"id": node, "connected": True, "state": "alive"} for node in NODES[:2]], "members"),
        ("nodes", [{"id": node, "connected": node != "aa", "state": "alive"} for node in NODES], "False"),
        ("nodes", [{"id": node, "connected": True, "state": "suspect"} for node in NODES], "suspect"),
    ],
)
def test_what_is_not_settled_is_told(word: str, value: Any, says: str) -> None:
    told = [status(number) for number in range(3)]
    told[1][word] = value
    assert says in why_not_settled(NODES, told)


def test_without_a_leader_or_with_too_few_voters_nothing_is_settled() -> None:
    told = [status(number) for number in range(3)]
    assert "leads" in why_not_settled(NODES[1:], told[1:])
    for one in told:
        one["voters"] = NODES[:1]
    assert "voters" in why_not_settled(NODES, told)


# --- figures and words ------------------------------------------------------------------------------------------------


def test_percentiles_are_by_nearest_rank() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert percentile([3.0], 99) == 3
    with pytest.raises(AssertionError, match="of nothing"):
        percentile([], 50)


def test_a_gate_fails_above_its_bound_and_where_there_is_no_number() -> None:
    assert [Figure("a", value, "s", 1.0).fails for value in (0.5, 1.0, 1.1, float("nan"))] == [False, False, True, True]
    target = Figure("a", 2.0, "s", 1.0, "target")
    assert (target.holds, target.fails) == (False, False)
    assert seen("a", 2.0, "s").holds
    with pytest.raises(AssertionError, match="has a bound"):
        Figure("a", 1.0, "s")


def test_the_table_says_what_does_not_hold() -> None:
    shown = table([Figure("short", 0.12345, "s", 1.0), Figure("a longer name", 12345.6, "B", 1.0), seen("n", 2, "")])
    assert shown.splitlines() == [
        "  short          0.1235 s  gate 1  holds",
        "  a longer name  12,346 B  gate 1  DOES NOT HOLD",
        "  n              2",
    ]


def breaks(_options: Options) -> list[Figure]:
    raise AssertionError("it broke")


def fails(_options: Options) -> list[Figure]:
    return [Figure("too much", 2, "", 1), Figure("enough", 1, "", 1)]


def test_what_breaks_and_what_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenarios = [Scenario("breaks", "", breaks), Scenario("fails", "", fails), Scenario("holds", "", lambda _: [])]
    monkeypatch.setattr(cluster, "SCENARIOS", {one.name: one for one in scenarios})
    monkeypatch.setattr(kernel, "why_not", lambda: "")
    assert main(["--json"]) == 1
    said = capsys.readouterr()
    assert [one["broke"] for one in json.loads(said.out)["scenarios"]] == ["AssertionError: it broke", "", ""]
    assert "does not hold: breaks: AssertionError: it broke\ndoes not hold: fails: too much\n" in said.err
    assert main(["--only", "holds"]) == 0


def test_how_often_how_long_and_by_which_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Options] = []

    def noted(scenario: Scenario, chosen: Options) -> Outcome:
        played.append(chosen)
        return play(Scenario("quiet", "", lambda _: []), chosen)

    monkeypatch.setattr(cluster, "play", noted)
    monkeypatch.setattr(kernel, "why_not", lambda: "")
    main(["--only", "leader_killed"])
    main(["--only", "leader_killed,all_killed", "--times", "3", "--minutes", "0.5", "--seed", "7"])
    assert [(one.times, one.seed) for one in played] == [(100, 1), (3, 7), (3, 7)]
    assert played[1].minutes == 0.5


def test_where_there_can_be_no_hosts_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel, "why_not", lambda: "this is an island")
    assert main([]) == 1
    assert "this is an island" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--times", "0"], ["--minutes", "-1"]])
def test_what_makes_no_sense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize(("missed", "code"), [([], 0), (["a fault"], 1)])
def test_a_planted_fault_that_is_not_seen_fails_the_run(
    missed: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted, "see", lambda _tell: missed)
    monkeypatch.setattr(kernel, "why_not", lambda: "")
    assert main(["--planted"]) == code


def test_what_a_planted_fault_breaks_is_told_and_what_is_not_seen_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(value: float) -> planted.Planted:
        return planted.Planted("breaks a promise", "", lambda _fleet, _options: [Figure("wrong", value, "", 0)], 1)

    monkeypatch.setattr(planted, "PLANTED", {"seen": found(2), "hidden": found(0)})
    monkeypatch.setattr(planted, "Fleet", MagicMock())
    told: list[str] = []
    assert planted.see(told.append) == ["hidden"]
    assert told == ["seen (breaks a promise): wrong: 2", "hidden (breaks a promise): NOT SEEN"]


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == list(cluster.SCENARIOS)
