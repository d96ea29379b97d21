"""What is there while nothing happens, in memory (PSS) and in CPU over 5 s.

First with a program attached that has run its last task a second ago: everything but the program, which is what others
have too. Then, for ours, after the program has gone: the daemon with its zygote, as it waits on a host all day.
"""

from __future__ import annotations

import os
import time

from abi_cli.bench import procs
from abi_cli.bench.claims import Line, Metric, Setup, gate_most, target_least
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import warm

SETTLE_S = 1.5
WATCH_S = 5.0


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """MB, per cent of one CPU, and the number of processes."""
    runtime.results([warm(runtime, setup.cores)()])
    memory, cpu, processes = _watch(setup)
    found = {"attached_mb": memory, "attached_cpu_percent": cpu, "attached_processes": float(processes)}
    if runtime.leave():
        found["daemon_mb"], found["daemon_cpu_percent"], _ = _watch(setup)
    return found


def _watch(setup: Setup) -> tuple[float, float, int]:
    time.sleep(SETTLE_S * setup.scale)
    pids = procs.descendants(os.getpid())
    memory = sum(procs.pss_bytes(pid) for pid in pids)
    before, begin = {pid: procs.cpu_ns(pid) for pid in pids}, time.monotonic_ns()
    time.sleep(WATCH_S * setup.scale)
    after, end = {pid: procs.cpu_ns(pid) for pid in pids}, time.monotonic_ns()
    return memory / 1e6, 100 * procs.cpu_between(before, after) / (end - begin), len(pids)


LINE = Line(
    name="idle",
    measure=measure,
    peers=("ppe", "pool", "ray", "dask"),
    metrics=(
        Metric("attached_mb", "idle, attached: all but the program", "MB", "less", (target_least(12, "ray"),)),
        Metric("attached_processes", "… processes", "", "less"),
        Metric("attached_cpu_percent", "… CPU", "%", "less"),
        Metric("daemon_mb", "idle daemon with its zygote", "MB", "less", (gate_most(45),)),
        Metric("daemon_cpu_percent", "… CPU", "%", "less", (gate_most(0.2),)),
    ),
)
