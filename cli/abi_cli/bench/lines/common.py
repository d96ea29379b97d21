"""What several lines do in the same way: warming up, repeating, and holding a queue still."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from abi_cli.bench import work
from abi_cli.bench.claims import Setup
from abi_cli.bench.contenders import Runtime

WARM_S = 0.02
WARM_CALLS = 200
WAIT_S = 30.0


def warm(runtime: Runtime, workers: int) -> Callable[[], Any]:
    """Start the runtime and use it until every worker is there and no-ops are known; the submitter of no-ops."""
    runtime.start(workers)
    pause = runtime.submitter(work.pause)
    runtime.results([pause(WARM_S) for _ in range(2 * workers)])
    submit = runtime.submitter(work.noop)
    for _ in range(3):
        runtime.results([submit() for _ in range(WARM_CALLS)])
    return submit


def repeat(times: int, budget_s: float) -> Iterator[int]:
    """0, 1, 2 … up to `times`, but none is begun after `budget_s`: a slow peer is measured once."""
    deadline = time.perf_counter() + budget_s
    for number in range(times):
        if number and time.perf_counter() >= deadline:
            return
        yield number


def seconds(action: Callable[[], object]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@contextmanager
def held_workers(runtime: Runtime, setup: Setup) -> Iterator[list[Any]]:
    """Every worker waits, at no cost, until the end of the block: what is submitted inside it stays in the queue.

    Yields the handles of the tasks that wait.
    """
    lock = os.path.join(setup.directory, f"lock-{time.monotonic_ns()}")
    with open(lock, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        signs = [f"{lock}.{number}" for number in range(setup.cores)]
        submit = runtime.submitter(work.held)
        handles = [submit(lock, sign) for sign in signs]
        wait_until(lambda: all(os.path.exists(sign) for sign in signs), "tasks that hold the workers did not start")
        yield handles


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Ask again every 5 ms. Raises TimeoutError with `what` after `WAIT_S`."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() >= deadline:
            raise TimeoutError(what)
        time.sleep(0.005)
