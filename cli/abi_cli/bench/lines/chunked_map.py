"""`map` of a function that returns its argument over 100,000 integers, 100 of them to a task, for everybody alike."""

from __future__ import annotations

from abi_cli.bench import stats, work
from abi_cli.bench.claims import Line, Metric, Setup, target_least
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import repeat, seconds, warm

ITEMS = 100_000
CHUNK = 100


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Items a second. Raises RuntimeError if a value is not what it should be."""
    warm(runtime, setup.cores)
    items = range(setup.count(ITEMS))
    runtime.chunked(work.same, items[: 20 * CHUNK], CHUNK)

    def once() -> None:
        if runtime.chunked(work.same, items, CHUNK) != list(items):
            raise RuntimeError("map returned other values than it should")

    walls = [seconds(once) for _ in repeat(5, budget_s=2.0)]
    return {"items_per_s": len(items) / stats.median(walls)}


LINE = Line(
    name="chunked_map",
    measure=measure,
    peers=("ppe", "pool", "dask"),
    metrics=(Metric("items_per_s", "map of 100,000 items, 100 a chunk", "/s", "more", (target_least(1, "pool"),)),),
)
