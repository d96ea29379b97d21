"""kill -9 of the worker that a program waits for, again and again: from the kill to the error in the program."""

from __future__ import annotations

import os

import abi
from abi.errors import TaskLostError
from abi_cli.bench import stats, work
from abi_cli.bench.claims import Line, Metric, Setup, gate_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import warm
from abi_cli.bench.lines.kill_worker import kill

DEATHS = 60
LONG_S = 600.0


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """ms from the kill to the error: the median, and the worst."""
    warm(runtime, setup.cores)
    walls = [_death_s(os.path.join(setup.directory, str(number))) for number in range(setup.count(DEATHS))]
    return {"median_ms": 1e3 * stats.median(walls), "worst_ms": 1e3 * max(walls)}


def _death_s(fifo: str) -> float:
    os.mkfifo(fifo)
    ref = abi.remote(max_retries=0)(work.announced).remote(fifo, LONG_S)
    with open(fifo, encoding="ascii") as file:
        pid = int(file.readline())
    begin = work.clock()
    kill(pid)
    try:
        abi.get(ref)
    except TaskLostError:
        return work.clock() - begin
    raise RuntimeError("the worker was killed, and yet its task has a result")


LINE = Line(
    name="worker_death",
    measure=measure,
    metrics=(
        Metric("median_ms", "kill -9 of a worker to the error", "ms", "less", (gate_most(50),)),
        Metric("worst_ms", "… the worst of 60", "ms", "less"),
    ),
)
