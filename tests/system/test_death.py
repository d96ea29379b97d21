"""When a worker dies, or its daemon: how soon it is known, what the error says, who is charged, what starts again."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, below, eventually
from tests.system.inside import inside, session, start
from tests.system.words import Ear, hold, let_go, note, notes, say


@pytest.fixture
def program(shared: Daemon) -> Iterator[Daemon]:
    with session(shared):
        yield shared


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


def test_death_is_noticed(program: Daemon, ear: Ear) -> None:
    """From the kill to the exception in the program, again and again. What it costs in time, the bench line
    ``worker_death`` measures."""
    path = ear.path

    @abi.remote(max_retries=0)
    def sleeper() -> None:
        say(path, os.getpid())
        time.sleep(600)

    for _ in range(9):
        ref = sleeper.remote()
        os.kill(int(ear.hear()), signal.SIGKILL)
        with pytest.raises(errors.TaskLostError):
            abi.get(ref, timeout=20)


# What the error says.


def exit_seven() -> None:
    os._exit(7)


def exit_zero() -> None:
    os._exit(0)


def segfault() -> None:
    ctypes.string_at(0)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def abort() -> None:
    os.abort()


def terminate_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def overflow_the_stack() -> None:
    """In C, where Python's own limit does not count."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    array = (ctypes.c_int * 2)(1, 0)
    sort = ctypes.CDLL(None).qsort
    sys.setrecursionlimit(1 << 30)

    @compare
    def deeper(_a: int, _b: int) -> int:
        sort(array, 2, 4, deeper)
        return 0

    sort(array, 2, 4, deeper)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (exit_seven, "exit code 7"),
        (exit_zero, "exit code 0"),
        (segfault, "SIGSEGV"),
        (kill_self, "SIGKILL"),
        (abort, "SIGABRT"),
        (terminate_self, "SIGTERM"),
        (overflow_the_stack, "SIGSEGV"),
    ],
)
def test_the_error_names_what_killed_it_and_its_last_words(
    program: Daemon, end: Callable[[], None], words: str
) -> None:
    @abi.remote(max_retries=1)
    def dies() -> None:
        print("to stdout, which is not asked for")
        print("the first of its last words", file=sys.stderr)
        os.write(2, b"and the very last, without a newline")
        end()

    @abi.remote(max_retries=0)
    def dies_once() -> None:
        print("seen once", file=sys.stderr)
        end()

    other = abi.remote(os.getpid).remote()
    with pytest.raises(errors.WorkerCrashedError) as crashed:
        abi.get(dies.remote(), timeout=20)
    said = str(crashed.value)
    assert words in said
    assert "dies" in said
    assert "given up after 2 starts" in said
    assert "the first of its last words" in said
    assert "and the very last, without a newline" in said
    assert "to stdout" not in said
    assert crashed.value.attempt == 2
    assert crashed.value.task_name.endswith("dies")
    with pytest.raises(errors.TaskLostError) as lost:
        abi.get(dies_once.remote(), timeout=20)
    assert words in str(lost.value)
    assert "seen once" in str(lost.value)
    assert abi.get(other) > 0, "nobody else is disturbed"
    assert abi.get(abi.remote(os.getpid).remote()) > 0


def test_an_exit_asked_for_by_exception_is_the_tasks_failure_and_not_its_workers(program: Daemon) -> None:
    @abi.remote(max_retries=0)
    def leaves(how: str) -> None:
        if how == "exit":
            sys.exit(3)
        raise KeyboardInterrupt("my own")

    @abi.remote
    def pid() -> int:
        return os.getpid()

    for how, name in (("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt")):
        with pytest.raises(errors.TaskError, match=name) as failed:
            abi.get(leaves.remote(how))
        assert not isinstance(failed.value, errors.WorkerCrashedError)
        assert not isinstance(failed.value, (SystemExit, KeyboardInterrupt)), "it must not end the program"
    assert len(set(abi.get([pid.remote() for _ in range(4)]))) <= 2


# Who is charged.


@pytest.mark.parametrize(("max_retries", "starts"), [(0, 1), (1, 2), (3, 4)])
def test_a_task_that_kills_its_worker_starts_once_more_than_it_may_be_retried(
    program: Daemon, tmp_path: Path, max_retries: int, starts: int
) -> None:
    log = str(tmp_path / "starts")

    @abi.remote(max_retries=max_retries)
    def dies() -> None:
        task = abi.current_task()
        assert task is not None
        note(log, task.attempt)
        os.kill(os.getpid(), signal.SIGKILL)

    kind = errors.TaskLostError if max_retries == 0 else errors.WorkerCrashedError
    with pytest.raises(kind):
        abi.get(dies.remote(), timeout=20)
    assert notes(log) == Counter(str(attempt) for attempt in range(1, starts + 1)), (
        "each start is an attempt of its own"
    )


def test_max_retries_without_an_end(program: Daemon, tmp_path: Path) -> None:
    log = str(tmp_path / "starts")

    @abi.remote(max_retries=-1)
    def dies_often() -> int:
        task = abi.current_task()
        assert task is not None
        note(log, task.attempt)
        if task.attempt <= 8:
            os._exit(1)
        return task.attempt

    assert abi.get(dies_often.remote(), timeout=30) == 9
    assert notes(log) == Counter(str(attempt) for attempt in range(1, 10))


def test_the_default_is_three(program: Daemon) -> None:
    @abi.remote
    def survives_the_fourth() -> int:
        task = abi.current_task()
        assert task is not None
        if task.attempt < 4:
            os._exit(1)
        return task.attempt

    assert abi.get(survives_the_fourth.remote(), timeout=20) == 4


def test_only_the_task_that_ran_is_charged_when_a_batch_loses_its_worker(program: Daemon, tmp_path: Path) -> None:
    """Many small tasks lie in a worker at once. One kills it; all have ``max_retries=0``'s opposite: a single retry,
    which only the killer may use up. Every start is an attempt, and who had not started keeps its first."""
    log = str(tmp_path / "starts")

    @abi.remote(max_retries=1)
    def task(n: int) -> tuple[int, int]:
        running = abi.current_task()
        assert running is not None
        note(log, n)
        if n % 100 == 50 and running.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return n, running.attempt

    delivered: list[int] = []
    refs = [task.remote(n) for n in range(1000)]
    for ref in refs:
        ref.future().add_done_callback(lambda done: delivered.append(done.result()[0]))
    attempts = dict(abi.get(refs, timeout=30))
    assert sorted(attempts) == list(range(1000)), "none lost"
    eventually(lambda: len(delivered) == 1000, "all callbacks")
    assert sorted(delivered) == list(range(1000)), "none delivered twice"
    starts = notes(log)
    assert {n: starts[str(n)] for n in attempts} == attempts, "each start is an attempt, each attempt a start"
    # More, where another killer took the worker along before the result of the second had left it: that is not charged.
    assert all(attempts[n] >= 2 for n in range(50, 1000, 100))


def test_a_poison_task_fails_after_its_starts_and_its_neighbours_do_not(program: Daemon) -> None:
    """Same function, same options, same batches. Twenty poisons kill forty workers; a neighbour that were charged for
    two of these deaths would fail."""

    @abi.remote(max_retries=1)
    def task(n: int) -> int:
        if n % 20 == 10:
            os._exit(9)
        return n

    refs = [task.remote(n) for n in range(400)]
    for n, ref in enumerate(refs):
        if n % 20 == 10:
            with pytest.raises(errors.WorkerCrashedError, match="exit code 9; given up after 2 starts"):
                abi.get(ref, timeout=30)
        else:
            assert abi.get(ref, timeout=30) == n


def test_a_kill_from_outside_in_the_middle_of_many_small_tasks(program: Daemon, tmp_path: Path) -> None:
    log = str(tmp_path / "starts")

    @abi.remote
    def task(n: int) -> tuple[int, int]:
        running = abi.current_task()
        assert running is not None
        note(log, n)
        time.sleep(0.001)
        return os.getpid(), running.attempt

    refs = [task.remote(n) for n in range(1000)]
    for at in (100, 300, 500, 700):
        victim, _ = abi.get(refs[at], timeout=30)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    found = abi.get(refs, timeout=30)
    starts = notes(log)
    unseen = [attempt - starts[str(n)] for n, (_, attempt) in enumerate(found)]
    assert set(unseen) <= {0, 1}, "each start is an attempt"
    assert sum(unseen) <= 4, "and each attempt a start, but for those killed before their first line"
    assert sum(starts.values()) < 1000 + 4 * 30, "only what had started, and its result not left, starts again"


# The daemon's death.

PATIENT = """
import abi.returning
abi.returning.RETURN_SECONDS = 100
"""
"""For a program that is to see the next daemon, however long that takes to start."""

RIDER = (
    PATIENT
    + """
import json, os, sys, threading, time
import abi
from tests.system.words import note, say, hold

log, ear, gate = sys.argv[1:]

@abi.remote
def quick(n):
    task = abi.current_task()
    note(log, f"{n}:{task.id}")
    time.sleep(0.01)
    return n, task.id

@abi.remote(max_retries=0)
def once(name):
    note(log, f"{name}:{abi.current_task().id}")
    say(ear, name)
    hold(gate)
    return name

@abi.remote
def chained(before, n):
    return before[0] + n

kept = abi.put("kept by the program")

@abi.remote
def reads(value):
    return value

delivered = []
told = threading.Semaphore(0)
started = [once.remote("started0"), once.remote("started1")]
later = once.remote("later")
refs = [quick.remote(n) for n in range(60)]
ends = [chained.remote(ref, 1000) for ref in refs] + [reads.remote(kept)]
for n, ref in enumerate(refs):
    ref.future().add_done_callback(lambda done, n=n: (delivered.append(n), told.release()))
print("submitted", flush=True)
found = abi.get(refs)
assert found == [(n, ref.id) for n, ref in enumerate(refs)], "results under the ids that were given out"
for _ in refs:
    assert told.acquire(timeout=60), "a thread beside calls them"
said = {"found": [n for n, _ in found], "ends": abi.get(ends), "lost": [], "later": "", "delivered": sorted(delivered)}
for ref in started:
    try:
        said["lost"].append(abi.get(ref))
    except abi.errors.AbiError as error:
        said["lost"].append(type(error).__name__)
said["later"] = abi.get(later)
print(json.dumps(said), flush=True)
"""
)


def test_a_program_rides_through_the_death_of_its_daemon(ear: Ear, tmp_path: Path) -> None:
    """kill -9, and a new daemon in the same directories while the program waits: what is unfinished is sent again under
    the same ids, and ends once. What may start only once, and had, is lost; what had not, runs."""
    log, gate = str(tmp_path / "starts"), str(tmp_path / "gate")
    daemon = Daemon(cpus=2)
    rider = start(daemon, "-c", RIDER, log, ear.path, gate)
    try:
        rider.await_out(b"submitted")
        assert {ear.hear(), ear.hear()} == {"started0", "started1"}
        daemon.kill()
        daemon.wait()
        let_go(gate)
        daemon.start()
        assert rider.wait() == 0, rider.err.decode()
        said = json.loads(rider.out.splitlines()[-1])
        assert said["found"] == list(range(60))
        assert said["ends"] == [n + 1000 for n in range(60)] + ["kept by the program"]
        assert said["lost"] == ["TaskLostError", "TaskLostError"]
        assert said["later"] == "later"
        assert said["delivered"] == list(range(60))
        starts = notes(log)
        assert set(starts.values()) == {1}, "none of these had ended before, and none was sent twice"
    finally:
        rider.close()
        daemon.close()


def test_a_program_rides_through_many_deaths_in_the_middle_of_its_work(tmp_path: Path) -> None:
    text = (
        PATIENT
        + """
import sys, time
import abi
from tests.system.words import note

@abi.remote
def task(n):
    note(sys_log, n)
    time.sleep(0.002)
    return n

sys_log = sys.argv[1]
delivered = []
refs = [task.remote(n) for n in range(900)]
for ref in refs:
    ref.future().add_done_callback(lambda done: delivered.append(done.result()))
for n in range(0, 900, 300):
    abi.get(refs[n])
    print("reached", n, flush=True)
assert abi.get(refs) == list(range(900))
while len(delivered) < 900:
    time.sleep(0.001)
assert sorted(delivered) == list(range(900))
print("all", flush=True)
"""
    )
    log = str(tmp_path / "starts")
    daemon = Daemon(cpus=2)
    rider = start(daemon, "-c", text, log)
    try:
        for n in (300, 600):
            rider.await_out(b"reached %d\n" % n)
            daemon.kill()
            daemon.wait()
            daemon.start()
        assert rider.wait() == 0, rider.err.decode()
        assert rider.out.endswith(b"all\n")
        assert set(notes(log)) == {str(n) for n in range(900)}
    finally:
        rider.close()
        daemon.close()


def test_a_drained_daemon_leaves_what_is_unfinished_to_the_next(ear: Ear, tmp_path: Path) -> None:
    """SIGTERM: what runs is finished and delivered by the old daemon, what waits is run by the new one."""
    text = (
        PATIENT
        + """
import sys
import abi
from tests.system.words import note, say, hold
log, ear, gate = sys.argv[1:]

@abi.remote(max_retries=0)
def once(n):
    note(log, n)
    say(ear, n)
    hold(gate)
    return n

refs = [once.remote(n) for n in range(10)]
assert abi.get(refs) == list(range(10))
print("all", flush=True)
"""
    )
    log, gate = str(tmp_path / "starts"), str(tmp_path / "gate")
    daemon = Daemon(cpus=2)
    rider = start(daemon, "-c", text, log, ear.path, gate)
    try:
        ear.hear_many(2)
        daemon.kill(signal.SIGTERM)
        daemon.await_log("draining")
        let_go(gate)
        assert daemon.wait() == 0
        assert sum(notes(log).values()) == 2, "it started nothing while it drained"
        daemon.start()
        assert rider.wait() == 0, rider.err.decode()
        assert rider.out == b"all\n"
        assert notes(log) == Counter(str(n) for n in range(10)), "once each: what ran was delivered before the end"
    finally:
        rider.close()
        daemon.close()


def test_a_program_that_goes_on_submitting_and_nesting_rides_through_drains(ear: Ear, tmp_path: Path) -> None:
    """While a daemon drains, parents that run get their children, and what the program still sends waits for the next
    daemon: nothing is refused, nothing runs twice."""
    text = (
        PATIENT
        + """
import sys, time
import abi
from tests.system.words import note, say, hold
log, ear, gate = sys.argv[1:]

@abi.remote(max_retries=0)
def child(n):
    note(log, f"child{n}")
    return n

@abi.remote(max_retries=0)
def parent(n):
    note(log, f"parent{n}")
    say(ear, n)
    hold(gate)
    return sum(abi.get([child.remote(10 * n + k) for k in range(3)]))

refs = [parent.remote(n) for n in range(2)]
print("sent", flush=True)
sys.stdin.readline()
refs += [parent.remote(n) for n in range(2, 6)]
time.sleep(0.01)  # longer than the helper thread lingers
print("sent more", flush=True)
assert abi.get(refs) == [30 * n + 3 for n in range(6)]
print("all", flush=True)
"""
    )
    log, gate = str(tmp_path / "starts"), str(tmp_path / "gate")
    daemon = Daemon(cpus=2)
    rider = start(daemon, "-c", text, log, ear.path, gate, stdin=subprocess.PIPE)
    try:
        ear.hear_many(2)
        daemon.kill(signal.SIGTERM)
        daemon.await_log("draining")
        assert rider.process.stdin is not None
        rider.process.stdin.write(b"\n")
        rider.process.stdin.close()
        rider.await_out(b"sent more")
        let_go(gate)
        assert daemon.wait() == 0
        assert notes(log) == Counter(
            ["parent0", "parent1", *(f"child{10 * n + k}" for n in range(2) for k in range(3))]
        )
        daemon.start()
        assert rider.wait() == 0, rider.err.decode()
        assert rider.out.endswith(b"all\n")
        expected = [f"parent{n}" for n in range(6)] + [f"child{10 * n + k}" for n in range(6) for k in range(3)]
        assert notes(log) == Counter(expected), "once each"
    finally:
        rider.close()
        daemon.close()


# The zygote's death.


def test_a_zygote_that_dies_takes_its_workers_and_charges_nobody(ear: Ear, tmp_path: Path) -> None:
    log, gate = str(tmp_path / "starts"), str(tmp_path / "gate")
    path = ear.path

    @abi.remote(max_retries=1)
    def task(n: int) -> int:
        running = abi.current_task()
        assert running is not None
        note(log, n)
        say(path, n)
        hold(gate)
        return running.attempt

    with inside(cpus=2) as daemon:
        refs = [task.remote(n) for n in range(4)]
        for _ in range(3):  # more often than a charged task would live
            ear.hear_many(2)
            (zygote,) = (pid for pid in below(daemon.pid) if is_zygote(pid))
            os.kill(zygote, signal.SIGKILL)
            eventually(lambda pid=zygote: pid not in below(daemon.pid), "it is reaped")  # type: ignore[misc]
        ear.hear_many(2)
        let_go(gate)
        assert max(abi.get(refs, timeout=20)) >= 4
        assert sum(notes(log).values()) == 4 + 3 * 2


def is_zygote(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid and Path("/proc", str(pid), "comm").read_text().strip() == "abi_zygote"
    except OSError:  # it has gone: an orphan of the zygote before
        return False
