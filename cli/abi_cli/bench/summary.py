"""From readings to what is said of them: medians, ratios, and whether each claim holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from abi_cli.bench import stats
from abi_cli.bench.claims import OURS, Claim, Line, Metric
from abi_cli.bench.rounds import CALM, Gathered, Readings


@dataclass(frozen=True)
class Figure:
    """One metric of one contender. `rounds` holds None where a round failed; without any number, median is None."""

    rounds: tuple[float | None, ...]
    median: float | None
    p99: float | None
    times_as_good: float | None = None
    """For peers: how many times as good as theirs our figure is, the median of the rounds' own ratios."""


@dataclass(frozen=True)
class Verdict:
    """One claim, the value that it is about, and whether it holds; None: not measured, for want of the peer."""

    claim: Claim
    value: float | None
    holds: bool | None


@dataclass(frozen=True)
class Row:
    """One metric of one line."""

    metric: Metric
    figures: Mapping[str, Figure]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Result:
    """One line. `problems` says which measurements failed, and what they left running."""

    line: Line
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def conclude(line: Line, gathered: Gathered) -> Result:
    """Everything that is to be said of one line."""
    readings = gathered.readings
    rows = tuple(_row(metric, readings) for metric in line.metrics)
    return Result(line, rows, tuple(_problems(readings)), tuple(_notes(gathered)))


def _row(metric: Metric, readings: Readings) -> Row:
    values = {name: _values(metric, readings[name]) for name in readings}
    if all(value is None for name, each in values.items() if name != OURS for value in each):
        values = {OURS: values[OURS]}  # a metric that only we have
    figures = {name: _figure(metric, values[OURS], each, is_peer=name != OURS) for name, each in values.items()}
    return Row(metric, figures, tuple(_verdict(claim, metric, values, OURS in readings) for claim in metric.claims))


def _values(metric: Metric, readings: Sequence[object]) -> list[float | None]:
    return [getattr(reading, "metrics", {}).get(metric.key) for reading in readings]


def _figure(metric: Metric, ours: list[float | None], values: list[float | None], *, is_peer: bool) -> Figure:
    measured = [value for value in values if value is not None]
    if not measured:
        return Figure(tuple(values), None, None)
    more = metric.better == "more"
    ratio = (stats.median_ratio(ours, values) if more else stats.median_ratio(values, ours)) if is_peer else None
    return Figure(tuple(values), stats.median(measured), stats.p99(measured, more_is_better=more), ratio)


def _verdict(claim: Claim, metric: Metric, values: Mapping[str, list[float | None]], measured: bool) -> Verdict:
    value = _value_of(claim, metric, values)
    if value is not None:
        return Verdict(claim, value, claim.holds(value))
    # A peer that is not there decides nothing. Our own figure that is missing, because every round failed, does.
    failed = measured and all(each is None for each in values[OURS])
    return Verdict(claim, None, False if failed else None)


def _value_of(claim: Claim, metric: Metric, values: Mapping[str, list[float | None]]) -> float | None:
    ours = values[OURS]
    if not claim.peer:
        measured = [value for value in ours if value is not None]
        return stats.median(measured) if measured else None
    theirs = values.get(claim.peer)
    if theirs is None:
        return None
    ours_on_top = metric.better == "more" or claim.sense == "most"
    return stats.median_ratio(ours, theirs) if ours_on_top else stats.median_ratio(theirs, ours)


def _notes(gathered: Gathered) -> list[str]:
    kept = max(map(len, gathered.readings.values()))
    if gathered.rounds == kept:
        return []
    note = f"the calmest {kept} of {gathered.rounds} rounds"
    if gathered.stolen > CALM:
        note += f", in which the host still gave {gathered.stolen:.1%} of the processors to others"
    return [note]


def _problems(readings: Readings) -> list[str]:
    found = []
    for name, each in readings.items():
        for number, reading in enumerate(each, 1):
            if reading.problem:
                found.append(f"{name}, round {number}: {reading.problem}")
            if reading.left:
                found.append(f"{name}, round {number}: had to be killed afterwards: {'; '.join(reading.left)}")
    return found


def count(results: Sequence[Result], kind: str) -> dict[str, int]:
    """How many claims of that kind hold, do not, and could not be measured."""
    verdicts = [verdict for result in results for row in result.rows for verdict in row.verdicts]
    ends = [verdict.holds for verdict in verdicts if verdict.claim.kind == kind]
    return {"hold": ends.count(True), "do_not": ends.count(False), "not_measured": ends.count(None)}


def as_object(result: Result) -> dict[str, object]:
    """A line for `--json`."""
    return {
        "line": result.line.name,
        "metrics": [
            {
                "key": row.metric.key,
                "title": row.metric.title,
                "unit": row.metric.unit,
                "better": row.metric.better,
                "figures": {name: asdict(figure) for name, figure in row.figures.items()},
                "claims": [
                    {**asdict(verdict.claim), "value": verdict.value, "holds": verdict.holds}
                    for verdict in row.verdicts
                ],
            }
            for row in result.rows
        ],
        "problems": list(result.problems),
        "notes": list(result.notes),
    }
