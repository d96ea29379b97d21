"""The table for people: one metric to a row, printed as soon as its line has been measured."""

from __future__ import annotations

from collections.abc import Sequence

from abi_cli.bench.claims import OURS, Claim, Metric
from abi_cli.bench.peers import Contender
from abi_cli.bench.summary import Figure, Result, Row, Verdict

LINE, WHAT, NUMBER, BOUND, VALUE = 17, 41, 16, 19, 8
HOLDS = {True: "holds", False: "DOES NOT", None: "not measured"}


class Table:
    """Columns of a fixed width, since rows are printed before the later ones are known."""

    def __init__(self, peers: Sequence[str]) -> None:
        self._names = [OURS, *peers]

    def head(self) -> str:
        """The first line: in brackets ours at p99, behind a peer's figure how many times as good ours is."""
        titles = [f"{OURS} (p99)", *(f"{name} ×" for name in self._names[1:])]
        return self._join("LINE", "MEASURED", [title.upper() for title in titles], "BOUND", "HERE", "")

    def lines(self, result: Result) -> list[str]:
        """The rows of one line of the bench, and below them what went wrong."""
        lines = []
        for number, row in enumerate(result.rows):
            lines += self._row(result.line.name if number == 0 else "", row)
        lines += [f"  ({note})" for note in result.notes]
        lines += [f"  ! {problem}" for problem in result.problems]
        return lines

    def _row(self, name: str, row: Row) -> list[str]:
        cells = [_cell(row.metric, row.figures.get(each), is_peer=each != OURS) for each in self._names]
        asked = [verdict for verdict in row.verdicts if verdict.claim.peer in ("", *self._names)]
        verdicts = [_verdict(row.metric, verdict) for verdict in asked] or [("", "", "")]
        lines = [self._join(name, row.metric.title, cells, *verdicts[0])]
        lines += [self._join("", "", [""] * len(cells), *verdict) for verdict in verdicts[1:]]
        return lines

    def _join(self, name: str, what: str, cells: Sequence[str], bound: str, value: str, holds: str) -> str:
        middle = "  ".join(cell.rjust(NUMBER) for cell in cells)
        return f"{name:<{LINE}}{what:<{WHAT}}{middle}   {bound:<{BOUND}}{value:>{VALUE}}  {holds}".rstrip()


def notes(contenders: Sequence[Contender]) -> list[str]:
    """Who takes part, with versions, and why others do not."""
    there = [f"{each.name} {each.version}" for each in contenders if not each.missing]
    return [f"measured: {', '.join(there)}", *(f"{each.name}: {each.missing}" for each in contenders if each.missing)]


def number(value: float, unit: str) -> str:
    """A figure in as few characters as still tell: 251k/s, 12.3 µs, 0.18 s."""
    value, unit = _scaled(value, unit)
    blank = "" if unit in ("/s", "%", "×", "") else " "
    return f"{_digits(value)}{blank}{unit}"


def _scaled(value: float, unit: str) -> tuple[float, str]:
    return (value / 1000, "ms") if unit == "µs" and value >= 1000 else (value, unit)


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 9_999_500:
        return f"{value / 1e6:.0f}M"
    if size >= 999_500:
        return f"{value / 1e6:.2f}M"
    if size >= 9_995:
        return f"{value / 1e3:.0f}k"
    if size >= 999.5:
        return f"{value / 1e3:.2f}k"
    if size >= 99.5 or value == int(value):
        return f"{value:.0f}"
    if size >= 9.95:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.095 else f"{value:.3f}"


def _cell(metric: Metric, figure: Figure | None, *, is_peer: bool) -> str:
    if figure is None or figure.median is None:
        return "" if figure is None else "failed"
    told = number(figure.median, metric.unit)
    if not is_peer:
        assert figure.p99 is not None
        factor = _scaled(figure.median, metric.unit)[0] / figure.median if figure.median else 1.0
        return f"{told} ({_digits(figure.p99 * factor)})"
    return told if not figure.times_as_good else f"{told} {_digits(figure.times_as_good)}×"


def _verdict(metric: Metric, verdict: Verdict) -> tuple[str, str, str]:
    claim = verdict.claim
    if verdict.value is None:
        return bound(claim, metric), "", HOLDS[verdict.holds]
    value = f"{_digits(verdict.value)}×" if claim.peer else number(verdict.value, metric.unit)
    return bound(claim, metric), value, HOLDS[verdict.holds]


def bound(claim: Claim, metric: Metric) -> str:
    """The claim in a few signs: `gate ≥ 8× ppe`, `target ≤ 10 µs`."""
    sign = "≥" if claim.sense == "least" else "≤"
    of = f"{_digits(claim.bound)}× {claim.peer}" if claim.peer else number(claim.bound, metric.unit)
    return f"{claim.kind} {sign} {of}"
