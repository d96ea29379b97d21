"""`abi bench`: measure this machine, alone or against others, and say which bounds hold.

Exit code 0 if every gate that was measured holds, else 1. A target that is missed, or a peer that is not installed, is
told and does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence

from abi.errors import UsageError
from abi.version import __version__
from abi_cli.bench import child, lines, peers, procs, rounds, summary, table
from abi_cli.bench.claims import OURS, Line

ROUNDS = 3
ROUNDS_MAX = 1_000
AGAINST = "ppe,pool"
STOLEN_WORTH_TELLING = 0.005
"""Stolen" time: with more of it, the tails of all figures are the host's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the bench takes besides `--json`, which the caller has added."""
    parser.add_argument(
        "--against", default=AGAINST, metavar="NAMES", help=f"peers: ppe, pool, ray, dask, or none (default {AGAINST})"
    )
    parser.add_argument("--peer-python", metavar="PATH", help="the python of an environment that has Ray or Dask")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="NAME", help=f"only these lines: {', '.join(lines.NAMES)}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Raises `UsageError`; KeyboardInterrupt passes through when all processes are gone."""
    if not 1 <= arguments.rounds <= ROUNDS_MAX:
        raise UsageError(f"--rounds {arguments.rounds}: between 1 and {ROUNDS_MAX}")
    wanted = [_load(name) for name in arguments.only or lines.NAMES]
    contenders = [peers.ours(), *peers.find(peers.parse(arguments.against), arguments.peer_python)]
    with procs.subreaper():
        return Bench(wanted, contenders, arguments.rounds, as_json=arguments.json).run()


class Bench:
    """One run of the bench. `cores` are those that this process may use."""

    def __init__(
        self, wanted: Sequence[Line], contenders: Sequence[peers.Contender], rounds_: int, *, as_json: bool
    ) -> None:
        self.cores = len(os.sched_getaffinity(0))
        self._lines = wanted
        self._contenders = contenders
        self._rounds = rounds_
        self._as_json = as_json
        self._table = table.Table([each.name for each in contenders if each.name != OURS])
        self._shows_progress = sys.stderr.isatty()

    def run(self) -> int:
        """All lines, one after the other."""
        begin, host = time.monotonic(), procs.Stolen()
        self._print(*self._introduction(), "", self._table.head())
        results = []
        for line in self._lines:
            results.append(self._measure(line))
            self._print(*self._table.lines(results[-1]))
        gates, targets = summary.count(results, "gate"), summary.count(results, "target")
        wall = time.monotonic() - begin
        stolen = host.share()
        self._print("", *(f"{kind}: {_told(ends)}" for kind, ends in (("gates", gates), ("targets", targets))))
        self._print(f"{self._rounds} rounds in {wall:.0f} s")
        if stolen >= STOLEN_WORTH_TELLING:
            self._print(f"meanwhile the host of this virtual machine gave {stolen:.1%} of its processors to others")
        if self._as_json:
            print(json.dumps(self._object(results, gates, targets, wall, stolen)))
        return 1 if gates["do_not"] else 0

    def _measure(self, line: Line) -> summary.Result:
        def about_to(number: int, contender: peers.Contender) -> None:
            again = "" if number < self._rounds else ", since the host was busy"
            self._progress(f"{line.name}: round {number + 1} of {self._rounds}{again}: {contender.name}")

        def measure(one: Line, contender: peers.Contender) -> child.Reading:
            return child.measure(one, contender, self.cores)

        gathered = rounds.gather(line, self._contenders, self._rounds, measure, about_to, procs.Stolen().share)
        self._progress("")
        return summary.conclude(line, gathered)

    def _introduction(self) -> list[str]:
        host = f"{self.cores} cores, Python {platform.python_version()}, Linux {platform.release()}"
        return [f"abi bench on {host}: medians of {self._rounds} interleaved rounds", *table.notes(self._contenders)]

    def _object(
        self,
        results: Sequence[summary.Result],
        gates: dict[str, int],
        targets: dict[str, int],
        wall: float,
        stolen: float,
    ) -> dict[str, object]:
        return {
            "version": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": self.cores,
            "rounds": self._rounds,
            "contenders": {
                each.name: {"version": each.version, "python": each.python, "missing": each.missing}
                for each in self._contenders
            },
            "lines": [summary.as_object(result) for result in results],
            "gates": gates,
            "targets": targets,
            "wall_s": round(wall, 3),
            "stolen": round(stolen, 4),
        }

    def _print(self, *texts: str) -> None:
        if not self._as_json:
            print(*texts, sep="\n", flush=True)

    def _progress(self, text: str) -> None:
        """On a terminal, one line that is written over; "" takes it away."""
        if self._shows_progress:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _load(name: str) -> Line:
    try:
        return lines.load(name)
    except KeyError:
        raise UsageError(f"the bench has no line {name!r}", hint=f"those there are: {', '.join(lines.NAMES)}") from None


def _told(ends: dict[str, int]) -> str:
    said = f"{ends['hold']} hold, {ends['do_not']} do not"
    return f"{said}, {ends['not_measured']} not measured" if ends["not_measured"] else said
