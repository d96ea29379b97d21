"""400 tasks of about 25 ms of computing, against as many bare processes as there are cores doing the same loop.

The amount is fixed (calibrated once, alone), not the time: a daemon that takes a core away shows. The share is the wall
time of the bare processes, each with its part and started by one word, over that of the tasks.
"""

from __future__ import annotations

import subprocess
import sys
import time

from abi_cli.bench import work
from abi_cli.bench.claims import Line, Metric, Setup, gate_least
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import seconds, warm

TASKS = 400
TASK_S = 0.025
PROBE = 100_000


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Seconds of both, and the share."""
    # A multiple of the cores, so that the bare processes can divide it evenly.
    tasks = -(-setup.count(TASKS) // setup.cores) * setup.cores
    iterations = int(PROBE * TASK_S / min(seconds(lambda: work.spin(PROBE)) for _ in range(9)))
    warm(runtime, setup.cores)
    submit = runtime.submitter(work.spin)
    runtime.results([submit(iterations) for _ in range(2 * setup.cores)])
    bare = _bare(tasks // setup.cores, iterations, setup.cores)
    wall = seconds(lambda: runtime.results([submit(iterations) for _ in range(tasks)]))
    bare = (bare + _bare(tasks // setup.cores, iterations, setup.cores)) / 2
    return {"share": bare / wall, "wall_s": wall, "bare_s": bare}


def _bare(tasks: int, iterations: int, processes: int) -> float:
    """Seconds from the word to the end of the last process."""
    code = (
        "import sys; from abi_cli.bench.work import spin; print('ready', flush=True); sys.stdin.readline();"
        f"[spin({iterations}) for _ in range({tasks})]; print('done', flush=True)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for child in children:
        _hear(child, b"ready\n")
    begin = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    for child in children:
        _hear(child, b"done\n")
    wall = time.perf_counter() - begin
    for child in children:
        child.communicate()
    return wall


def _hear(child: subprocess.Popen[bytes], word: bytes) -> None:
    assert child.stdout is not None
    if child.stdout.readline() != word:
        raise RuntimeError("a bare process failed")


LINE = Line(
    name="two_cores",
    measure=measure,
    peers=("pool", "ray", "dask"),
    metrics=(
        Metric("share", "400 × 25 ms, share of bare processes", "×", "more", (gate_least(0.95),)),
        Metric("wall_s", "400 × 25 ms", "s", "less"),
    ),
)
