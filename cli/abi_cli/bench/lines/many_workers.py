"""128 workers, each with one sleeping task after the other (200 ms, for about 5 s): how late the daemon's loop is.

The lag is the daemon's own figure, `loop_lag_ms_p99` of `abi status --json`: asked in the middle and at the end, the
worse of the two.
"""

from __future__ import annotations

import json
import subprocess
import time

from abi_cli.bench import work
from abi_cli.bench.claims import Line, Metric, Setup, gate_least, gate_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.own_daemon import program

WORKERS = 128
TASK_S = 0.2
EACH = 25


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """ms of lag, and how many workers there really were."""
    workers = setup.count(WORKERS)
    runtime.start(workers)
    pause = runtime.submitter(work.pause)
    handles = [pause(TASK_S) for _ in range(workers * EACH)]
    time.sleep(TASK_S * EACH / 2)
    middle = _lag_ms()
    pids = set(runtime.results(handles))
    return {"loop_lag_ms": max(middle, _lag_ms()), "workers": float(len(pids))}


def _lag_ms() -> float:
    said = subprocess.run([program("abi"), "status", "--json"], stdout=subprocess.PIPE, check=True).stdout
    return float(json.loads(said)["loop_lag_ms_p99"])


LINE = Line(
    name="many_workers",
    measure=measure,
    metrics=(
        Metric("loop_lag_ms", "128 workers that sleep: loop lag p99", "ms", "less", (gate_most(20),)),
        Metric("workers", "… workers that took part", "", "more", (gate_least(WORKERS),)),
    ),
)
