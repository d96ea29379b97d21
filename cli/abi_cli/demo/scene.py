"""The job: one task a file, its progress, and a worker that is killed in the middle of it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import abi
from abi_cli.bench import procs
from abi_cli.demo.measure import Report, measure_file

KILL_AT = 0.4  # of all files: enough done to show that it runs, enough left to show that it goes on
WORKER_MARK = "abi_worker"
STEP_S = 0.1
BUSY_S = 0.5  # at most so long a worker is looked for that computes at that moment


@dataclass(frozen=True)
class Scene:
    """What happened. `killed` is a process id, 0 if there was none to kill; `processes` are all that were seen."""

    reports: tuple[Report, ...]
    seconds: float
    killed: int
    processes: dict[int, str]


def play(paths: Sequence[str], daemon_pid: int, progress: Callable[[int], None], tell: Callable[[str], None]) -> Scene:
    """Submit everything, wait, and kill one worker when `KILL_AT` is done.

    `progress` is given the number of files that are done, `tell` a sentence when the worker is killed. Raises what a
    task raised.
    """
    measure = abi.remote(measure_file)
    killed, processes = 0, {}
    begin = time.perf_counter()
    refs: list[Any] = [measure.remote(path) for path in paths]
    pending = refs
    while pending:
        wanted = len(pending) if killed else max(1, math.ceil(KILL_AT * len(refs)) - (len(refs) - len(pending)))
        done, pending = abi.wait(pending, num_returns=min(wanted, len(pending)), timeout=STEP_S)
        count = len(refs) - len(pending)
        progress(count)
        processes.update(_seen())
        if not killed and count >= KILL_AT * len(refs):
            killed = _kill_one(daemon_pid, [report.pid for report in abi.get(done)])
            if killed:
                tell(f"kill -9 {killed}: a worker, when {count:,} of {len(refs):,} files were done")
    reports = tuple(abi.get(refs))
    return Scene(reports, time.perf_counter() - begin, killed, processes)


def _kill_one(daemon_pid: int, reported: Sequence[int]) -> int:
    """SIGKILL to a worker, if there is one to one that computes at this moment; its process id, 0 if there is none.

    Only a process that reported as a worker of ours, is below our daemon and says so in its command line is touched.
    """
    ours = set(procs.descendants(daemon_pid)) & set(reported)
    workers = [pid for pid in ours if WORKER_MARK in procs.command_line(pid)]
    if not workers:
        return 0
    late = time.monotonic() + BUSY_S
    while (busy := next(filter(_computes, workers), 0)) == 0 and time.monotonic() < late:
        time.sleep(0.001)
    killed = busy or workers[0]
    os.kill(killed, signal.SIGKILL)
    return killed


def _computes(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"R"
    return False


def _seen() -> dict[int, str]:
    return {pid: procs.command_line(pid) for pid in procs.descendants(os.getpid())}
