"""`abi status` against `python -c pass`, one after the other, fifteen times: the wall time of each process."""

from __future__ import annotations

import subprocess
import sys

from abi_cli.bench import stats
from abi_cli.bench.claims import Line, Metric, Setup, gate_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import seconds, warm
from abi_cli.bench.own_daemon import program

TIMES = 15


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """ms of both, and the difference of their medians. Raises CalledProcessError if `abi status` fails."""
    warm(runtime, setup.cores)
    bare, asked = [sys.executable, "-c", "pass"], [program("abi"), "status"]
    for command in (bare, asked):
        _run(command)  # what they read is in the page cache from here on
    pairs = [(seconds(lambda: _run(bare)), seconds(lambda: _run(asked))) for _ in range(setup.count(TIMES))]
    bare_ms = stats.median([pair[0] for pair in pairs]) * 1e3
    status_ms = stats.median([pair[1] for pair in pairs]) * 1e3
    return {"status_ms": status_ms, "bare_ms": bare_ms, "over_bare_ms": status_ms - bare_ms}


def _run(command: list[str]) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


LINE = Line(
    name="status",
    measure=measure,
    metrics=(
        Metric("status_ms", "abi status", "ms", "less"),
        Metric("bare_ms", "python -c pass", "ms", "less"),
        Metric("over_bare_ms", "abi status less python -c pass", "ms", "less", (gate_most(40),)),
    ),
)
