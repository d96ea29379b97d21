"""1,000,000 tasks in the queue at once. Every worker is held while they are submitted, then they are let go.

The rate is a million over the seconds from the first submission to the last result. Memory is the PSS of everything but
the workers (client and daemon together), with the queue full, less that before it. The cost of a task is the CPU of all
processes; at a thousand it is the mean of twenty queues of a thousand, made and emptied in the same way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from abi_cli.bench import procs
from abi_cli.bench.claims import Line, Metric, Setup, gate_least, gate_most, target_least, target_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import held_workers, seconds, warm

DEEP = 1_000_000
SHALLOW = 1_000
SHALLOW_TIMES = 20
WORKER_MARK = "abi_worker"


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Tasks a second, bytes a task, and the cost of a task in a deep queue over that in a shallow one."""
    submit = warm(runtime, setup.cores)
    shallow, deep = setup.count(SHALLOW), setup.count(DEEP)
    costs = [_fill_and_empty(runtime, setup, submit, shallow)[1] for _ in range(SHALLOW_TIMES)]
    shallow_us = sum(costs) / len(costs)
    before = _memory()
    grown: list[int] = []
    rate, deep_us = _fill_and_empty(runtime, setup, submit, deep, when_full=lambda: grown.append(_memory() - before))
    return {
        "tasks_per_s": rate,
        "bytes_per_task": grown[0] / deep,
        "cost_us": deep_us,
        "cost_ratio": deep_us / shallow_us if shallow_us else 0.0,
    }


def _fill_and_empty(
    runtime: Runtime, setup: Setup, submit: Callable[[], Any], tasks: int, when_full: Callable[[], None] | None = None
) -> tuple[float, float]:
    """(tasks a second, µs of CPU a task) of a queue of `tasks`, those that hold the workers included."""
    # No process comes or goes from here on; and to look for them each time would cost as much as some hundred tasks.
    pids = [os.getpid(), *procs.descendants(os.getpid())]
    cpu = sum(procs.cpu_ns(pid) for pid in pids)
    begin = time.perf_counter()
    with held_workers(runtime, setup) as holders:
        handles = [submit() for _ in range(max(1, tasks - len(holders)))]
        if when_full is not None:
            begin += seconds(when_full)
    runtime.results(handles)
    wall = time.perf_counter() - begin
    runtime.results(holders)
    used = sum(procs.cpu_ns(pid) for pid in pids) - cpu
    total = len(handles) + len(holders)
    return total / wall, used / 1e3 / total


def _memory() -> int:
    """Bytes of the program and of all below it that is no worker (nor the zygote, which is one that waits)."""
    pids = [os.getpid(), *procs.descendants(os.getpid())]
    return sum(procs.pss_bytes(pid) for pid in pids if WORKER_MARK not in procs.command_line(pid))


LINE = Line(
    name="deep_queue",
    measure=measure,
    limit_s=300.0,
    metrics=(
        Metric("tasks_per_s", "1,000,000 queued", "/s", "more", (gate_least(60_000), target_least(100_000))),
        Metric(
            "bytes_per_task", "client and daemon, a queued task", "B", "less", (gate_most(1_500), target_most(1_000))
        ),
        Metric("cost_us", "CPU of all processes, a queued task", "µs", "less"),
        Metric("cost_ratio", "CPU a task, at 1,000,000 over at 1,000", "×", "less", (gate_most(1.5),)),
    ),
)
