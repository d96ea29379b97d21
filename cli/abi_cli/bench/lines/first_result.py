"""From nothing to a first result: a fresh interpreter imports the library, starts what it needs, runs one no-op.

Wall time from the start of the process to the line it prints with the result in hand; its end is not in it. Ours starts
a private daemon. Three times in a row, the median.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from abi_cli.bench import stats
from abi_cli.bench.claims import Line, Metric, Setup, gate_most, target_least, target_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import repeat

TIMES = 3


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Seconds. The contender is started in processes below this one, never here."""
    name = type(runtime).__module__.rpartition(".")[2]
    walls = [_first(name, setup, number) for number in repeat(TIMES, budget_s=10.0)]
    return {"seconds": stats.median(walls)}


def _first(name: str, setup: Setup, number: int) -> float:
    directory = os.path.join(setup.directory, str(number))
    os.mkdir(directory, 0o700)
    command = [sys.executable, "-m", "abi_cli.bench.first", name, str(setup.cores), directory]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        # Others may print about themselves before; only this line counts.
        said = any(line == b"first result\n" for line in child.stdout)
        wall = time.perf_counter() - begin
        child.stdout.read()
    if not said or child.returncode:
        raise RuntimeError(f"no first result; exit code {child.returncode}")
    return wall


LINE = Line(
    name="first_result",
    measure=measure,
    peers=("ppe", "pool", "ray", "dask"),
    metrics=(
        Metric(
            "seconds", "first result from nothing", "s", "less",
            (gate_most(0.35), target_most(0.2), target_least(12, "ray")),
        ),
    ),
)  # fmt: skip
