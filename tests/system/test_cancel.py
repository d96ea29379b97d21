"""Cancelling and time limits: what waits never runs, what runs is interrupted, and nobody else is."""

from __future__ import annotations

import asyncio
import os
import queue
import random
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, alive, await_gone, eventually
from tests.system.inside import inside, session
from tests.system.tasks import stay
from tests.system.words import Ear, hold, let_go, note, notes, say

SOON_S = 25
"""What an interrupt may take on a busy machine, far below the grace and what the interrupted thing would."""
LIMITS_S = (0.2, 2.0, 10.0)
"""Time limits, of which the first that is long enough for a task to come so far as its test wants it to will do."""


@pytest.fixture
def program(shared: Daemon) -> Iterator[Daemon]:
    with session(shared):
        yield shared


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    made = Daemon(config="[workers]\ninterrupt_grace_ms = 60_000\n")
    yield made
    made.close()


@pytest.fixture
def impatient() -> Iterator[Daemon]:
    """One that soon kills who ignores an interrupt."""
    with inside(config="[workers]\ninterrupt_grace_ms = 300\n") as made:
        yield made


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


# Before it runs, and after.


def test_what_waits_never_runs(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    """For a processor, or for another task's result."""
    gate, log = str(tmp_path / "gate"), str(tmp_path / "log")

    @abi.remote
    def never(n: int, _value: object = None) -> None:
        note(log, n)

    running = [stay.remote(str(n), ear.path, gate) for n in range(2)]
    ear.hear_many(2)
    queued = never.remote(1)
    waiting = never.remote(2, running[0])
    after_it = never.remote(3, queued)
    for ref in (queued, waiting):
        abi.cancel(ref)
    for ref in (queued, waiting, after_it):
        with pytest.raises(errors.TaskCancelledError):
            abi.get(ref, timeout=SOON_S)
    let_go(gate)
    assert abi.get(running) == ["0", "1"], "whom they waited for is not touched"
    assert not notes(log)


def test_what_has_ended_stays_as_it_ended(program: Daemon) -> None:
    @abi.remote
    def answer() -> int:
        return 42

    @abi.remote
    def fails() -> None:
        raise ValueError("mine")

    done, failed = answer.remote(), fails.remote()
    abi.wait([done, failed], num_returns=2)
    for force in (False, True):
        for ref in (done, failed):
            abi.cancel(ref, force=force)
    assert abi.get(done) == 42
    with pytest.raises(ValueError, match="mine"):
        abi.get(failed)


def test_twice_is_once(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    path, log = ear.path, str(tmp_path / "log")

    @abi.remote
    def sleeps() -> None:
        try:
            say(path, "running")
            time.sleep(600)
        except KeyboardInterrupt:
            note(log, "interrupted")
            raise

    ref = sleeps.remote()
    ear.hear()
    for _ in range(5):
        abi.cancel(ref)
    with pytest.raises(errors.TaskCancelledError):
        abi.get(ref, timeout=SOON_S)
    abi.cancel(ref)
    assert notes(log) == {"interrupted": 1}


# What it interrupts.


def sleeps() -> None:
    time.sleep(600)


def computes() -> None:
    n = 0
    while True:
        n += 1


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def waits_for_a_lock_with_a_limit() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=600)


def waits_for_an_event() -> None:
    threading.Event().wait()


def waits_in_a_queue() -> None:
    queue.Queue[int]().get()


def waits_for_a_nested_task() -> None:
    abi.get(abi.remote(time.sleep).options(num_cpus=0).remote(600))


def waits_for_nested_tasks() -> None:
    refs = [abi.remote(time.sleep).options(num_cpus=0).remote(600) for _ in range(3)]
    abi.wait(refs, num_returns=3)


def waits_for_a_process() -> None:
    subprocess.run(["sleep", "600"])


def waits_for_a_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(600,), daemon=True)
    thread.start()
    thread.join()


def reads_a_socket() -> None:
    ours, _theirs = socket.socketpair()
    ours.recv(1)


def selects() -> None:
    select.select([], [], [], 600)


def waits_for_input() -> None:
    read_fd, _ = os.pipe()
    os.read(read_fd, 1)


async def sleeps_asynchronously() -> None:
    await asyncio.sleep(600)


async def computes_in_a_coroutine() -> None:
    while True:
        pass


async def awaits_a_nested_task() -> None:
    await abi.remote(time.sleep).options(num_cpus=0).remote(600)


ALL = [
    sleeps, computes, waits_for_a_lock, waits_for_a_lock_with_a_limit, waits_for_an_event, waits_in_a_queue,
    waits_for_a_nested_task, waits_for_nested_tasks, waits_for_a_process, waits_for_a_thread, reads_a_socket, selects,
    waits_for_input, sleeps_asynchronously, computes_in_a_coroutine, awaits_a_nested_task,
]  # fmt: skip


@pytest.mark.parametrize("does", ALL, ids=lambda does: does.__name__)
def test_a_running_task_is_interrupted_and_its_worker_goes_on(
    program: Daemon, ear: Ear, does: Callable[[], Any]
) -> None:
    path = ear.path
    if asyncio.iscoroutinefunction(does):

        @abi.remote
        async def task() -> None:
            say(path, os.getpid())
            await does()
    else:

        @abi.remote
        def task() -> None:
            say(path, os.getpid())
            does()

    @abi.remote(num_cpus=0)
    def pid() -> int:
        time.sleep(0.1)
        return os.getpid()

    ref = task.remote()
    worker = int(ear.hear())
    abi.cancel(ref)
    with pytest.raises(errors.TaskCancelledError) as cancelled:
        abi.get(ref, timeout=SOON_S)
    assert "cancelled" in str(cancelled.value)
    assert alive(worker), "it was interrupted, not killed"
    found = abi.get([pid.remote() for _ in range(8)], timeout=SOON_S)  # at once: more than there are others
    assert worker in found, "it takes the next task"


def test_a_task_may_clean_up_and_what_it_returns_then_is_lost(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    path, log = ear.path, str(tmp_path / "log")

    @abi.remote
    def cleans_up() -> None:
        try:
            say(path, "running")
            time.sleep(600)
        finally:
            note(log, "cleaned")

    @abi.remote
    def swallows() -> str:
        try:
            say(path, "running")
            time.sleep(600)
        except KeyboardInterrupt:
            note(log, "swallowed")
        return "went on"

    @abi.remote
    async def cleans_up_in_a_coroutine() -> None:
        try:
            say(path, "running")
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.01)
            note(log, "cleaned")

    refs = []
    for task in (cleans_up, cleans_up_in_a_coroutine):
        ref = task.remote()
        refs.append(ref)
        ear.hear()
        abi.cancel(ref)
    for ref in refs:
        with pytest.raises(errors.TaskCancelledError):
            abi.get(ref, timeout=SOON_S)
    ref = swallows.remote()
    ear.hear()
    abi.cancel(ref)
    assert abi.get(ref, timeout=SOON_S) == "went on", "it ended well in spite of it, and its result is as good as any"
    assert notes(log) == {"cleaned": 2, "swallowed": 1}


# With force, and with children.


def test_force_kills_the_worker_and_spares_the_others(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    path, log, gate = ear.path, str(tmp_path / "log"), str(tmp_path / "gate")

    @abi.remote
    def stubborn() -> None:
        note(log, "start")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                say(path, os.getpid())
                time.sleep(600)
            except KeyboardInterrupt:
                continue

    other = stay.remote("other", path, gate)
    assert ear.hear() == "other"
    ref = stubborn.remote()
    worker = int(ear.hear())
    abi.cancel(ref, force=True)
    with pytest.raises(errors.WorkerCrashedError, match="cancelled with force"):
        abi.get(ref, timeout=SOON_S)
    await_gone([worker])
    let_go(gate)
    assert abi.get(other) == "other"
    assert notes(log) == {"start": 1}, "it is not tried again"


def test_force_after_a_cancel_that_did_not_help(program: Daemon, ear: Ear) -> None:
    path = ear.path

    @abi.remote
    def stubborn() -> None:
        word = "running"
        while True:
            try:
                if word:
                    say(path, word)
                word = ""
                time.sleep(600)
            except KeyboardInterrupt:
                word = "no"

    ref = stubborn.remote()
    assert ear.hear() == "running"
    abi.cancel(ref)
    assert ear.hear() == "no"
    abi.cancel(ref, force=True)
    with pytest.raises(errors.WorkerCrashedError):
        abi.get(ref, timeout=SOON_S)


def test_force_on_what_waits_is_a_plain_cancel(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    running = [stay.remote(str(n), ear.path, gate) for n in range(2)]
    ear.hear_many(2)
    ref = stay.remote("never", ear.path, gate)
    abi.cancel(ref, force=True)
    with pytest.raises(errors.TaskCancelledError):
        abi.get(ref, timeout=SOON_S)
    let_go(gate)
    assert abi.get(running) == ["0", "1"]


def test_children_are_cancelled_with_their_parent(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    """Running ones, queued ones, and children of children; unless asked not to."""
    path, log, gate = ear.path, str(tmp_path / "log"), str(tmp_path / "gate")

    @abi.remote(num_cpus=0)
    def child(name: str) -> None:
        try:
            say(path, name)
            hold(gate)
            note(log, f"{name}-lived")
        except KeyboardInterrupt:
            note(log, f"{name}-interrupted")
            raise

    @abi.remote(num_cpus=0)
    def middle(name: str) -> None:
        refs = [child.remote(f"{name}{n}") for n in range(2)]
        say(path, f"{name}-middle")
        abi.get(refs)

    @abi.remote(num_cpus=0)
    def top(name: str) -> None:
        abi.get(middle.remote(name))

    gone, kept = top.remote("a"), top.remote("b")
    assert sorted(ear.hear_many(6)) == ["a-middle", "a0", "a1", "b-middle", "b0", "b1"]
    abi.cancel(gone)
    abi.cancel(kept, recursive=False)
    for ref in (gone, kept):
        with pytest.raises(errors.TaskCancelledError):
            abi.get(ref, timeout=SOON_S)
    eventually(lambda: len(notes(log)) == 2, "two were interrupted")
    assert notes(log) == {"a0-interrupted": 1, "a1-interrupted": 1}
    let_go(gate)
    eventually(lambda: len(notes(log)) == 4, "two lived on")
    assert notes(log)["b0-lived"] == notes(log)["b1-lived"] == 1


# Never anybody else.


def test_five_hundred_cancels_hit_nobody_else(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    """Short tasks in batches, some of which are cancelled at random moments: before, while and after they run. Who was
    not cancelled ends well, having seen no interrupt; who was, ends well or as cancelled; none runs twice."""
    log, gate = str(tmp_path / "log"), str(tmp_path / "gate")
    chance = random.Random(20261122)

    @abi.remote
    def short(n: int) -> int:
        note(log, n)
        deadline = time.monotonic() + 0.0005 * (n % 4)
        while time.monotonic() < deadline:
            pass
        return n

    count = 1500
    running = [stay.remote(str(n), ear.path, gate) for n in range(2)]
    ear.hear_many(2)
    refs = [short.remote(n) for n in range(count)]
    victims = set(chance.sample(range(count), 500))
    order = sorted(victims, key=lambda n: n + chance.randrange(60))
    before, later = order[:60], order[60:]
    for n in before:
        abi.cancel(refs[n])
    abi.wait([refs[n] for n in before], num_returns=60, timeout=20)
    let_go(gate)
    for n in later:
        if chance.random() < 0.2:
            abi.wait([refs[max(0, n - 5)]], timeout=0.05)  # keep step with those that run
        abi.cancel(refs[n])
    assert abi.get(running) == ["0", "1"]
    cancelled = 0
    for n, ref in enumerate(refs):
        try:
            assert abi.get(ref, timeout=30) == n
        except errors.TaskCancelledError:
            assert n in victims, f"task {n} was hit, and nobody had cancelled it"
            cancelled += 1
    starts = notes(log)
    assert max(starts.values()) == 1
    assert all(starts[str(n)] == 1 for n in range(count) if n not in victims)
    assert cancelled >= 60, "those that had not begun, at least"


def test_an_interrupt_that_comes_too_late_does_not_hit_the_next_task(program: Daemon, tmp_path: Path) -> None:
    """One worker, one long task after the other, each cancelled as it is about to end by itself."""

    @abi.remote
    def naps(seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    @abi.remote
    def watches() -> str:
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass
        return "undisturbed"

    with inside(cpus=1):
        ends = {"slept": 0, "cancelled": 0}
        pause_s = 0.004
        for _ in range(120):
            ref = naps.remote(0.004)
            after = watches.remote()
            time.sleep(pause_s)
            abi.cancel(ref)
            try:
                ends[abi.get(ref, timeout=SOON_S)] += 1
                pause_s *= 0.8  # too late: it keeps to the moment at which either may be
            except errors.TaskCancelledError:
                ends["cancelled"] += 1
                pause_s *= 1.2
            assert abi.get(after, timeout=SOON_S) == "undisturbed"
        assert min(ends.values()) > 0, f"both ways were seen: {ends}"


def test_an_interrupt_between_the_halves_of_our_own_work_breaks_nothing(program: Daemon, ear: Ear) -> None:
    """Parents that submit and get all the time are cancelled at any moment; the worker's connection stays whole."""
    path = ear.path

    @abi.remote
    def leaf(n: int) -> int:
        return n

    @abi.remote
    def busy_parent() -> None:
        say(path, os.getpid())
        while True:
            assert abi.get([leaf.remote(n) for n in range(20)]) == list(range(20))
            print("a line of output, too")

    @abi.remote
    def well() -> int:
        return sum(abi.get([leaf.remote(n) for n in range(10)]))

    workers = set()
    for n in range(40):
        ref = busy_parent.remote()
        workers.add(int(ear.hear()))
        time.sleep(0.002 * (n % 10))
        abi.cancel(ref)
        with pytest.raises(errors.TaskCancelledError):
            abi.get(ref, timeout=10)
        assert abi.get(well.remote(), timeout=10) == 45
    assert all(alive(worker) for worker in workers), "no worker broke"


# Time limits.


def test_a_task_that_runs_too_long_is_interrupted(program: Daemon, tmp_path: Path) -> None:
    log = str(tmp_path / "log")

    @abi.remote
    def slow() -> None:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            note(log, "interrupted")
            raise

    @abi.remote(timeout=60)
    def quick() -> str:
        return "quick"

    for limit_s in LIMITS_S:
        began = time.monotonic()
        with pytest.raises(errors.TaskTimedOut, match=f"longer than its timeout of {limit_s:g} s") as timed_out:
            abi.get(slow.options(timeout=limit_s).remote(), timeout=SOON_S)
        assert time.monotonic() - began >= limit_s
        assert isinstance(timed_out.value, TimeoutError)
        if notes(log):
            break
    assert notes(log) == {"interrupted": 1}
    assert abi.get(quick.remote()) == "quick"


def test_a_task_that_ignores_the_interrupt_is_killed_after_the_grace(
    impatient: Daemon, ear: Ear, tmp_path: Path
) -> None:
    path, log = ear.path, str(tmp_path / "log")

    @abi.remote(max_retries=3)
    def stubborn(limit_s: float) -> None:
        note(log, limit_s)
        while True:
            try:
                say(path, os.getpid())
                time.sleep(600)
            except KeyboardInterrupt:
                continue

    for limit_s in LIMITS_S:
        began = time.monotonic()
        with pytest.raises(errors.TaskTimedOut):
            abi.get(stubborn.options(timeout=limit_s).remote(limit_s), timeout=SOON_S)
        if words := ear.heard():
            break
    assert words, "it was not even begun"
    assert time.monotonic() - began >= limit_s + 0.3
    await_gone(map(int, words))
    assert notes(log)[str(limit_s)] == 1, "it is not tried again"


def test_the_clock_starts_with_the_task_and_not_with_its_wait(program: Daemon, ear: Ear, tmp_path: Path) -> None:
    @abi.remote
    def quick() -> str:
        return "in time"

    def ends_in_time(limit_s: float) -> bool:
        gate = str(tmp_path / str(limit_s))
        running = [stay.remote(str(n), ear.path, gate) for n in range(2)]
        ear.hear_many(2)
        refs = [quick.options(timeout=limit_s).remote() for _ in range(3)]
        assert abi.wait(refs, timeout=1.2 * limit_s) == ([], refs), "they wait for longer than they may run"
        let_go(gate)
        assert abi.get(running) == ["0", "1"]
        try:
            return abi.get(refs, timeout=SOON_S) == ["in time"] * 3
        except errors.TaskTimedOut:
            return False

    assert any(map(ends_in_time, LIMITS_S)), "not even ten seconds are enough"


def test_c_code_that_never_returns_is_killed_when_its_time_is_over(impatient: Daemon, ear: Ear) -> None:
    import ctypes

    path = ear.path

    @abi.remote
    def in_c() -> None:
        say(path, "begun")
        ctypes.PyDLL(None).pause()  # with the interpreter's lock held: no handler of Python's ever runs
        while True:
            ctypes.PyDLL(None).pause()

    for limit_s in LIMITS_S:
        with pytest.raises(errors.TaskTimedOut):
            abi.get(in_c.options(timeout=limit_s).remote(), timeout=SOON_S)
        if words := ear.heard():
            break
    assert words, "it was not even begun"
