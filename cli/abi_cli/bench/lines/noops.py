"""10,000 tasks that do nothing: submitted one by one, then waited for; up to three times in a process, the median.

CPU is that of every process of the runtime, the program's included, from the first submission until 50 ms after the
last result, so that what is cleared away afterwards is in it.
"""

from __future__ import annotations

import os
import time

from abi_cli.bench import procs, stats
from abi_cli.bench.claims import Line, Metric, Setup, gate_least, gate_most, target_least, target_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import repeat, seconds, warm

TASKS = 10_000
AFTER_S = 0.05


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Tasks a second, and µs of CPU a task."""
    submit = warm(runtime, setup.cores)
    tasks = setup.count(TASKS)
    before = procs.tree_cpu_ns(os.getpid())
    walls = [seconds(lambda: runtime.results([submit() for _ in range(tasks)])) for _ in repeat(3, budget_s=2.0)]
    time.sleep(AFTER_S)
    cpu = procs.cpu_between(before, procs.tree_cpu_ns(os.getpid()))
    return {"tasks_per_s": tasks / stats.median(walls), "cpu_us": cpu / 1e3 / (tasks * len(walls))}


LINE = Line(
    name="noops",
    measure=measure,
    peers=("ppe", "pool", "ray", "dask"),
    metrics=(
        Metric(
            "tasks_per_s", "10,000 no-ops", "/s", "more",
            (
                gate_least(8, "ppe"), target_least(12, "ppe"), gate_least(2, "pool"), target_least(3, "pool"),
                target_least(50, "ray"),
            ),
        ),
        Metric("cpu_us", "CPU of all processes, a task", "µs", "less", (gate_most(15), target_most(10))),
    ),
)  # fmt: skip
