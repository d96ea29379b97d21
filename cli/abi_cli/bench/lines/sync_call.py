"""One no-op after the other, each waited for before the next: 2,000 of them, or as many as fit into 3 s."""

from __future__ import annotations

from time import perf_counter

from abi_cli.bench import stats
from abi_cli.bench.claims import Line, Metric, Setup, gate_most, target_least, target_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import warm

CALLS = 2_000
WARM_CALLS = 200
BUDGET_S = 3.0


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Median and p99 of a call, in µs, and the one over the other."""
    submit = warm(runtime, setup.cores)
    results = runtime.results
    times: list[float] = []
    deadline = perf_counter() + BUDGET_S
    for _ in range(setup.count(WARM_CALLS) + setup.count(CALLS)):
        begin = perf_counter()
        results([submit()])
        end = perf_counter()
        times.append(end - begin)
        if end > deadline:
            break
    times = times[min(WARM_CALLS, len(times) // 10) :]
    p50, p99 = stats.median(times) * 1e6, stats.quantile(times, 0.99) * 1e6
    return {"p50_us": p50, "p99_us": p99, "p99_over_p50": p99 / p50}


LINE = Line(
    name="sync_call",
    measure=measure,
    peers=("ppe", "pool", "ray", "dask"),
    metrics=(
        Metric(
            "p50_us", "sync call, p50", "µs", "less",
            (gate_most(1.5, "ppe"), target_most(1.0, "ppe"), target_least(5, "ray")),
        ),
        Metric("p99_us", "sync call, p99", "µs", "less"),
        Metric("p99_over_p50", "sync call, p99 over p50", "×", "less", (gate_most(3),)),
    ),
)  # fmt: skip
