"""1,000 tasks that sleep 10 ms, and one worker is killed (SIGKILL) when a quarter of them is done.

Each returns its number, so that what is lost, doubled or mixed up shows. Ideal is the time in which the workers would
sleep it off without a pause; what is measured is how far the whole goes beyond 1.1 × ideal.
"""

from __future__ import annotations

import os
import signal

from abi_cli.bench import procs, work
from abi_cli.bench.claims import Line, Metric, Setup, gate_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import warm

TASKS = 1_000
TASK_S = 0.010
ALLOWANCE = 1.1


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Tasks lost, tasks that started again, seconds, and seconds beyond 1.1 × ideal."""
    warm(runtime, setup.cores)
    submit = runtime.submitter(work.numbered)
    tasks = setup.count(TASKS)
    begin = work.clock()
    handles = [submit(index, TASK_S) for index in range(tasks)]
    ((_, pid, _),) = runtime.results([handles[tasks // 4]])
    kill(pid)
    ends = [_end(runtime, handle) for handle in handles]
    wall = work.clock() - begin
    return {
        "lost": float(sum(1 for index, end in enumerate(ends) if end is None or end[0] != index)),
        "restarted": float(sum(1 for end in ends if end is not None and end[2] > 1)),
        "wall_s": wall,
        "beyond_s": wall - ALLOWANCE * tasks * TASK_S / setup.cores,
    }


def kill(pid: int) -> None:
    """SIGKILL to a worker. Raises RuntimeError if it is not one of ours."""
    if pid not in procs.descendants(os.getpid()):
        raise RuntimeError(f"process {pid} said it was a worker, but it is not below us")
    os.kill(pid, signal.SIGKILL)


def _end(runtime: Runtime, handle: object) -> tuple[int, int, int] | None:
    try:
        (value,) = runtime.results([handle])
    except Exception:
        return None
    index, pid, attempt = value
    return index, pid, attempt


LINE = Line(
    name="kill_worker",
    measure=measure,
    peers=("ray", "dask"),
    limit_s=180.0,
    metrics=(
        Metric("lost", "kill -9 among 1,000 × 10 ms: lost", "", "less", (gate_most(0),)),
        Metric("restarted", "… started again", "", "less"),
        Metric("wall_s", "… all of it", "s", "less"),
        Metric("beyond_s", "… beyond 1.1 × ideal", "s", "less", (gate_most(0.3),)),
    ),
)
