"""1,000 sleeping tasks of one function, 1 ms each, but one in a hundred of them 1 s, at places that a seed shuffles.

Each says when it began and ended. A short task waits behind a long one only if there is a moment at which a worker is
free and yet tasks have not begun. From the moment when all are submitted to that when the last begins, we look for such
moments: stretches in which fewer tasks ran than there are workers. Between one task and the next there is always a
little, and now and then a busy or virtual machine gives a process no time for 20 ms; whoever waits behind a long task
waits for half a second on average. So a stretch counts from 50 ms on, and the short tasks that had not begun then were
stranded; the longest stretch is shown too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from abi_cli.bench import work
from abi_cli.bench.claims import Line, Metric, Setup, gate_most
from abi_cli.bench.contenders import Runtime
from abi_cli.bench.lines.common import warm

SHORT_S = 0.001
LONG_S = 1.0
TASKS = 1_000
LONG_EVERY = 100
COUNTS_FROM_S = 0.050
SEED = 20261122

Span = tuple[float, float]


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Share of short tasks that were stranded, the longest stretch in ms, and the whole in s."""
    warm(runtime, setup.cores)
    durations = plan(setup.count(TASKS), LONG_S * setup.scale)
    submit = runtime.submitter(work.stamped)
    runtime.results([submit(SHORT_S) for _ in range(50)])
    begin = work.clock()
    handles = [submit(duration) for duration in durations]
    submitted = work.clock()
    spans: list[Span] = runtime.results(handles)
    short = [span for span, duration in zip(spans, durations, strict=True) if duration == SHORT_S]
    idle = stretches(spans, setup.cores, submitted)
    longest = max((end - start for start, end in idle), default=0.0)
    return {
        "stranded_percent": 100 * stranded(short, idle) / len(short),
        "longest_idle_ms": longest * 1e3,
        "wall_s": max(end for _, end in spans) - begin,
    }


def plan(tasks: int, long_s: float) -> list[float]:
    """The durations: one in `LONG_EVERY` is long."""
    durations = [long_s if number % LONG_EVERY == 0 else SHORT_S for number in range(tasks)]
    random.Random(SEED).shuffle(durations)
    return durations


def stretches(spans: Sequence[Span], workers: int, since: float) -> list[Span]:
    """When fewer than `workers` ran although one had not begun, after `since`: every such stretch, in order."""
    last_begin = max(begin for begin, _ in spans)
    # At one moment ends come before beginnings; they make a stretch of no length.
    events = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    found: list[Span] = []
    running, previous = 0, since
    for moment, change in events:
        begin, end = max(previous, since), min(moment, last_begin)
        if running < workers and end > begin:
            if found and found[-1][1] == begin:
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        running += change
        previous = moment
    return found


def stranded(short: Sequence[Span], idle: Sequence[Span]) -> int:
    """How many of `short` had not begun when the first stretch had lasted `COUNTS_FROM_S`."""
    reached = [begin + COUNTS_FROM_S for begin, end in idle if end - begin >= COUNTS_FROM_S]
    return sum(1 for begin, _ in short if reached and begin > reached[0])


LINE = Line(
    name="long_among_short",
    measure=measure,
    peers=("ppe", "pool", "ray", "dask"),
    metrics=(
        Metric("stranded_percent", "1 in 100 is 1,000 × longer: stranded", "%", "less", (gate_most(0),)),
        Metric("longest_idle_ms", "… a worker free meanwhile, longest", "ms", "less"),
        Metric("wall_s", "… all of it", "s", "less"),
    ),
)
