"""What must hold. Each check looks at what really came out; the demo fails with the first word that differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from abi_cli.demo.measure import Measure, Report

SHOWN = 3


@dataclass(frozen=True)
class Check:
    """`told` says what was found, whether it holds or not."""

    what: str
    holds: bool
    told: str


def one_result_each(paths: Sequence[str], reports: Sequence[Report]) -> Check:
    """No file without a result, none with two, none that nobody asked for."""
    found = Counter(report.measure.path for report in reports)
    missing = [path for path in paths if path not in found]
    doubled = [path for path, times in found.items() if times > 1]
    foreign = [path for path in found if path not in set(paths)]
    told = [
        f"{len(some)} {word}: {_few(some)}"
        for some, word in ((missing, "missing"), (doubled, "more than once"), (foreign, "never asked for"))
        if some
    ]
    what = "every file has exactly one result"
    return Check(what, not told, "; ".join(told) or f"{len(reports):,} results for {len(paths):,} files")


def same_as_alone(reports: Sequence[Report], alone: Sequence[Measure]) -> Check:
    """Line by line what one process found."""
    expected = {measure.path: measure for measure in alone}
    wrong = [report.measure.path for report in reports if expected.get(report.measure.path) != report.measure]
    what = "every result is what one process finds alone"
    return Check(what, not wrong, f"{len(wrong)} differ: {_few(wrong)}" if wrong else f"{len(reports):,} are equal")


def worker_died(pid: int, below: Iterable[int], reports: Sequence[Report]) -> Check:
    """The killed process is gone, and others went on. `pid` 0: none was killed."""
    what = "a worker was killed and the others went on"
    if not pid:
        return Check(what, False, "no worker was found that could be killed")
    if pid in set(below):
        return Check(what, False, f"process {pid} is still there")
    others = {report.pid for report in reports} - {pid}
    again = sum(1 for report in reports if report.attempt > 1)
    told = f"{len(others)} other workers reported, {again} {'task was' if again == 1 else 'tasks were'} started again"
    return Check(what, bool(others), told)


def job_counted(code: int, said: str, lines: int) -> Check:
    """The command exited with 0 and its number is ours."""
    what = "the command line counts the same lines"
    if code:
        return Check(what, False, f"it exited with {code}")
    theirs = said.strip()
    return Check(what, theirs == str(lines), f"wc says {theirs or 'nothing'}, the tasks say {lines}")


def nobody_left(started: int, left: Sequence[str]) -> Check:
    """Not one of the processes that the demo started is there any more."""
    told = f"{len(left)} still there: {_few(left)}" if left else f"{started} were started, none is left"
    return Check("no process is left", not left, told)


def _few(some: Sequence[str]) -> str:
    more = len(some) - SHOWN
    return ", ".join(some[:SHOWN]) + (f" and {more} more" if more > 0 else "")
