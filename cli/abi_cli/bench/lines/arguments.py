"""10,000 tasks that do nothing with an argument of 1 KB: the same bytes object, pickled again for each."""

from __future__ import annotations

from abi_cli.bench import stats, work
from abi_cli.bench.claims import Line, Metric, Setup, gate_least
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import repeat, seconds, warm

TASKS = 10_000
PAYLOAD = bytes(range(256)) * 4


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Tasks a second."""
    warm(runtime, setup.cores)
    submit = runtime.submitter(work.take)
    runtime.results([submit(PAYLOAD) for _ in range(setup.count(200))])
    tasks = setup.count(TASKS)
    walls = [seconds(lambda: runtime.results([submit(PAYLOAD) for _ in range(tasks)])) for _ in repeat(3, budget_s=2.0)]
    return {"tasks_per_s": tasks / stats.median(walls)}


LINE = Line(
    name="arguments",
    measure=measure,
    peers=("ppe", "pool", "ray", "dask"),
    metrics=(Metric("tasks_per_s", "10,000 tasks with 1 KB each", "/s", "more", (gate_least(5, "ppe"),)),),
)
