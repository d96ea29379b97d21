"""./dev torture cluster: clusters of real daemons on hosts for tests, each ill-treated in one way, many times or long.

What is measured is told as figures; one that is a gate must hold. Needs root and network namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.hosts import kernel
from tests.torture import beacons, churn, leaders, links, names, planted, pressure, strangers
from tests.torture.figures import Figure, table
from tests.torture.scenario import Options, Scenario

FAMILIES: Final = (leaders, names, links, pressure, beacons, churn, strangers)
SCENARIOS: Final[dict[str, Scenario]] = {one.name: one for family in FAMILIES for one in family.SCENARIOS}


@dataclass
class Outcome:
    """``broke`` says what did, empty if nothing."""

    scenario: Scenario
    options: Options
    figures: list[Figure]
    broke: str
    took_s: float
    load: float
    """Processes that were runnable on this machine when it began, by the mean of the minute before."""

    @property
    def failures(self) -> list[str]:
        found = [f"{self.scenario.name}: {figure.name}" for figure in self.figures if figure.fails]
        return [f"{self.scenario.name}: {self.broke}", *found] if self.broke else found

    def shown(self) -> dict[str, Any]:
        return {
            "name": self.scenario.name,
            "times": self.options.times,
            "minutes": self.options.minutes,
            "seed": self.options.seed,
            "took_s": round(self.took_s, 1),
            "load_before": round(self.load, 2),
            "broke": self.broke,
            "figures": [figure.shown() for figure in self.figures],
        }

    def __str__(self) -> str:
        extent = f"{self.options.minutes:g} min" if self.scenario.minutes else f"× {self.options.times}"
        head = f"{self.scenario.name} {extent}, seed {self.options.seed}: {self.took_s:.0f} s, load {self.load:.1f}"
        return "\n".join(
            [head, *([table(self.figures)] if self.figures else []), *([self.broke] if self.broke else [])]
        )


def play(scenario: Scenario, options: Options) -> Outcome:
    """Run it to its end, whatever that is."""
    start, load = time.monotonic(), os.getloadavg()[0]
    figures: list[Figure] = []
    broke = ""
    try:
        figures = scenario.run(options)
    except Exception as error:
        traceback.print_exc()
        broke = f"{type(error).__name__}: {str(error).strip() or 'no words'}"
    return Outcome(scenario, options, figures, broke, time.monotonic() - start, load)


def torture(scenarios: Sequence[Scenario], times: int | None, minutes: float | None, seed: int, as_json: bool) -> int:
    """One after the other. The exit code."""
    outcomes = []
    for scenario in scenarios:
        options = Options(
            scenario.times if times is None else times,
            scenario.minutes if minutes is None else minutes,
            seed,
            lambda words, name=scenario.name: print(f"{name}: {words}", file=sys.stderr, flush=True),  # type: ignore[misc]
        )
        outcome = play(scenario, options)
        outcomes.append(outcome)
        if not as_json:
            print(outcome, flush=True)
    if as_json:
        cores = len(os.sched_getaffinity(0))
        print(json.dumps({"cores": cores, "scenarios": [outcome.shown() for outcome in outcomes]}, indent=2))
    failures = [words for outcome in outcomes for words in outcome.failures]
    for words in failures:
        print(f"does not hold: {words}", file=sys.stderr)
    return 1 if failures else 0


def named(text: str) -> list[Scenario]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return [SCENARIOS[name] for name in names]


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev torture cluster", description=__doc__)
    parser.add_argument("--only", type=named, metavar="NAME,…", help="these; else all, which takes hours")
    parser.add_argument("--times", type=positive(int), metavar="N", help="how often; else as often as each promises")
    parser.add_argument("--minutes", type=positive(float), metavar="M", help="how long; else as long as each promises")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of what is drawn by lot (1)")
    parser.add_argument("--json", action="store_true", help="one object, when all is over")
    parser.add_argument("--list", action="store_true", help="the scenarios")
    parser.add_argument(
        "--planted", action="store_true", help="faults planted in daemons, which must be seen: a minute"
    )
    options = parser.parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS.values():
            extent = f"{scenario.minutes:g} min" if scenario.minutes else f"× {scenario.times}"
            print(f"{scenario.name:22} {extent:8} {scenario.says}")
        return 0
    missing = kernel.why_not()
    if missing:
        print(f"no hosts for tests: {missing}", file=sys.stderr)
        return 1
    if options.planted:
        return 1 if planted.see(print) else 0
    return torture(options.only or list(SCENARIOS.values()), options.times, options.minutes, options.seed, options.json)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
