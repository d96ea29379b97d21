"""What the lines measure: their own rules, and each that can be run without any runtime at all, in the small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi_cli.bench import lines, work
from abi_cli.bench.claims import Setup
from abi_cli.bench.contenders.inline import Inline
from abi_cli.bench.lines import kill_worker, long_among_short
from abi_cli.bench.lines.long_among_short import COUNTS_FROM_S, plan, stranded, stretches

INLINE = ("noops", "arguments", "chunked_map", "sync_call", "idle", "two_cores", "long_among_short")


@pytest.mark.parametrize("name", INLINE)
def test_a_line_measures_what_it_says(name: str, tmp_path: Path) -> None:
    runtime = Inline(Setup(1, str(tmp_path)))
    line = lines.load(name)
    found = line.measure(runtime, Setup(1, str(tmp_path), scale=0.002))
    declared = {metric.key for metric in line.metrics if not metric.key.startswith("daemon_")}
    assert set(found) >= declared
    assert runtime.started == 1


def test_a_gap_in_which_nothing_waited_is_none() -> None:
    # Two workers; the second is free from 3.0 on, but by then the last task has begun.
    spans = [(0.0, 5.0), (0.0, 2.0), (2.0, 3.0)]
    assert stretches(spans, 2, since=0.0) == []


def test_a_short_one_behind_a_long_one_is_stranded() -> None:
    # A worker runs a second task only after its long one, while the other has been free since 1.0.
    spans = [(0.0, 5.0), (0.0, 1.0), (5.0, 5.1)]
    assert stretches(spans, 2, since=0.0) == [(1.0, 5.0)]
    assert stranded([(0.0, 1.0), (5.0, 5.1)], [(1.0, 5.0)]) == 1


def test_a_moment_between_two_tasks_strands_nobody() -> None:
    spans = [(0.0, 1.0), (0.0, 1.0), (1.0 + COUNTS_FROM_S / 2, 2.0), (1.0, 2.0)]
    idle = stretches(spans, 2, since=0.0)
    assert idle == [(1.0, 1.0 + COUNTS_FROM_S / 2)]
    assert stranded(spans, idle) == 0


def test_what_happened_before_all_were_submitted_does_not_count() -> None:
    spans = [(2.0, 3.0), (2.5, 3.0), (3.0, 4.0)]
    assert stretches(spans, 2, since=2.5) == []
    assert stretches(spans, 2, since=0.0) == [(0.0, 2.5)]


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60), st.integers(1, 5))
def test_a_runtime_that_never_waits_is_never_blamed(durations: list[float], workers: int) -> None:
    """Whoever hands the next task to the first free worker leaves no stretch, whatever the durations."""
    free = [0.0] * workers
    spans = []
    for duration in durations:
        worker = free.index(min(free))
        begin = free[worker]
        free[worker] = begin + duration
        spans.append((begin, free[worker]))
    assert stretches(spans, workers, since=0.0) == []


def test_the_plan_has_one_long_in_a_hundred_at_scattered_places() -> None:
    durations = plan(1_000, 1.0)
    places = [number for number, duration in enumerate(durations) if duration == 1.0]
    assert len(places) == 10
    assert places == [number for number, duration in enumerate(plan(1_000, 1.0)) if duration == 1.0]
    assert len({place % 100 for place in places}) > 1


def test_kill_worker_touches_only_its_own_descendants() -> None:
    with pytest.raises(RuntimeError, match="not below us"):
        kill_worker.kill(os.getppid())


def test_work_says_where_and_at_which_attempt_it_ran() -> None:
    assert work.numbered(7, 0.0) == (7, os.getpid(), 1)
    begin, end = work.stamped(0.0)
    assert begin <= end
    assert long_among_short.SHORT_S * 1000 == long_among_short.LONG_S
