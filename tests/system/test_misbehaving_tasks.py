"""Tasks that do to their process what one should not: a clear error for them, if any, and nobody else notices.

"Nobody else" is checked after each: the task that comes next in the same worker if that lives on, and one that ran in
the other worker all the while.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, alive, eventually, parent_of, rss_bytes
from tests.system.inside import inside, run, session
from tests.system.tasks import stay
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


@pytest.fixture
def witness(program: Daemon, ear: Ear, tmp_path: Path) -> Iterator[Any]:
    """A task that runs beside the others from before them until after them."""
    gate = str(tmp_path / "witness")
    ref = stay.options(max_retries=0).remote("witness", ear.path, gate)
    assert ear.hear() == "witness"
    yield ref
    let_go(gate)
    assert abi.get(ref, timeout=10) == "witness"


@abi.remote
def look_around() -> dict[str, Any]:
    """What the next task finds."""
    print("heard")
    return {
        "pid": os.getpid(),
        "directory": os.getcwd(),
        "sigint": getattr(signal.getsignal(signal.SIGINT), "__name__", ""),
        "sigterm": signal.getsignal(signal.SIGTERM),
        "sigalrm": signal.getsignal(signal.SIGALRM),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "address_space": resource.getrlimit(resource.RLIMIT_AS),
        "stdout": sys.stdout.fileno(),
        "threads": sum("works" in thread.name for thread in threading.enumerate()),
    }


def after(spoiler: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a task found before and after another one, which may fail, in workers of its session; the same one if it
    lived."""
    before = abi.get(look_around.remote(), timeout=10)
    with contextlib.suppress(errors.TaskError):
        abi.get(spoiler.remote(), timeout=20)
    return before, abi.get(look_around.remote(), timeout=10)


def test_a_task_that_closes_every_descriptor(program: Daemon, witness: Any) -> None:
    @abi.remote(max_retries=1)
    def closes_all() -> None:
        os.closerange(0, 4096)

    with pytest.raises(errors.WorkerCrashedError, match=r"closed (the|its worker's) connection") as crashed:
        abi.get(closes_all.remote(), timeout=20)
    assert "given up after 2 starts" in str(crashed.value)
    assert "somebody else" not in str(crashed.value)
    assert abi.get(look_around.remote(), timeout=10)["stdout"] == 1


def test_who_closed_the_descriptors_is_charged_and_not_who_came_next(program: Daemon) -> None:
    """Small tasks follow each other within microseconds; the connection is missed only when results are sent."""

    @abi.remote(max_retries=1)
    def task(n: int) -> int:
        if n % 50 == 25:
            os.closerange(0, 4096)
        return n

    refs = [task.remote(n) for n in range(200)]
    for n, ref in enumerate(refs):
        if n % 50 == 25:
            with pytest.raises(errors.WorkerCrashedError, match="given up after"):
                abi.get(ref, timeout=20)
        else:
            assert abi.get(ref, timeout=20) == n


def test_a_task_that_closes_the_descriptors_of_its_output(
    program: Daemon, witness: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    @abi.remote
    def closes_its_output() -> int:
        os.close(1)
        os.close(2)
        return os.getpid()

    worker = abi.get(closes_its_output.remote())
    capsys.readouterr()
    assert abi.get(look_around.remote())["pid"] == worker
    assert "heard" in capsys.readouterr().out


def test_a_task_that_goes_elsewhere(program: Daemon, witness: Any) -> None:
    @abi.remote
    def goes_elsewhere() -> None:
        os.chdir("/")

    @abi.remote
    def goes_elsewhere_and_fails() -> None:
        fd = os.open("/tmp", os.O_RDONLY)
        os.fchdir(fd)
        os.close(fd)
        raise ValueError("mine")

    for task in (goes_elsewhere, goes_elsewhere_and_fails):
        before, found = after(task)
        assert found == before
        assert found["directory"] == os.getcwd()


def test_a_task_that_deletes_the_directory_it_is_in(program: Daemon, witness: Any) -> None:
    @abi.remote
    def deletes() -> None:
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        shutil.rmtree(folder)

    before, found = after(deletes)
    assert found == before


def test_a_task_that_deletes_the_programs_own_directory(shared: Daemon, tmp_path: Path) -> None:
    """As for any process: what is left of it is used, and whoever asks for its name is told that it has none."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "main.py").write_text("""
import os, shutil, abi

@abi.remote
def deletes():
    shutil.rmtree(os.getcwd())
    return os.getpid()

@abi.remote
def next_one():
    try:
        return os.getpid(), os.getcwd()
    except FileNotFoundError:
        return os.getpid(), "gone"

worker = abi.get(deletes.remote())
assert abi.get(next_one.remote()) == (worker, "gone")
assert abi.get([next_one.options(num_cpus=2).remote() for _ in range(3)])[-1][1] == "gone"
os.kill(worker, 9)
print(abi.get(next_one.remote())[1])
""")
    said = run(shared, "main.py", cwd=folder)
    assert said.splitlines()[-1] == "/", "a new worker cannot enter it, says so, and runs in /"


def test_a_task_that_sets_every_signal_handler(program: Daemon, witness: Any, ear: Ear) -> None:
    path = ear.path

    @abi.remote
    def sets_all() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                continue

    @abi.remote
    def masks_all() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    @abi.remote
    def sets_an_alarm() -> None:
        def on_alarm(*_: object) -> None:
            raise TimeoutError("the alarm of a task that ended")

        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 1000, 1000)

    @abi.remote
    def sleeps(seconds: float) -> str:
        say(path, "sleeps")
        time.sleep(seconds)
        return "undisturbed"

    for task in (sets_all, masks_all, sets_an_alarm):
        before, found = after(task)
        assert found == before, "the same worker, and nothing of it is left"
        assert abi.get(sleeps.remote(0.15), timeout=10) == "undisturbed"
        assert ear.hear() == "sleeps"
        ref = sleeps.remote(600)
        assert ear.hear() == "sleeps"
        abi.cancel(ref)
        with pytest.raises(errors.TaskCancelledError):
            abi.get(ref, timeout=10)


def test_a_task_that_leaves_threads_running(program: Daemon, witness: Any, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    @abi.remote
    def leaves_threads() -> int:
        def works() -> None:
            hold(gate)
            raise RuntimeError("in a thread, long after")

        for daemonic in (True, False):
            threading.Thread(target=works, daemon=daemonic).start()
        return os.getpid()

    worker = abi.get(leaves_threads.remote())
    found = abi.get([look_around.remote() for _ in range(20)])
    assert {one["pid"] for one in found} == {worker}
    assert {one["threads"] for one in found} == {2}
    let_go(gate)
    eventually(lambda: abi.get(look_around.remote())["threads"] == 0, "they end by themselves")
    assert abi.get(look_around.remote())["pid"] == worker, "and hurt nobody"


def test_a_worker_with_a_thread_that_never_ends_ends_with_its_session(shared: Daemon, ear: Ear) -> None:
    @abi.remote
    def leaves_a_thread() -> int:
        def runs_for_ever() -> None:
            while True:
                time.sleep(1)

        threading.Thread(target=runs_for_ever, daemon=False).start()
        return os.getpid()

    with session(shared):
        worker = abi.get(leaves_a_thread.remote())
        assert alive(worker)
    eventually(lambda: not alive(worker), "it does not wait for the thread")


def test_a_task_that_forks_and_returns_twice(program: Daemon, witness: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "log")

    @abi.remote(max_retries=0)
    def returns_twice() -> tuple[int, int]:
        worker = os.getpid()
        child = os.fork()
        note(log, "child" if child == 0 else "worker")
        return worker, os.getpid()

    @abi.remote(max_retries=0)
    def raises_twice() -> None:
        os.fork()
        raise ValueError("from whom?")

    delivered: list[tuple[int, int]] = []
    ref = returns_twice.remote()
    ref.future().add_done_callback(lambda done: delivered.append(done.result()))
    worker, answered = abi.get(ref)
    assert worker == answered, "the child is not heard"
    eventually(lambda: notes(log) == {"child": 1, "worker": 1}, "both returned")
    with pytest.raises(ValueError, match="from whom"):
        abi.get(raises_twice.remote())
    assert abi.get(look_around.remote())["pid"] == worker
    assert len(delivered) == 1


def test_a_task_may_use_processes_of_its_own(program: Daemon, witness: Any) -> None:
    @abi.remote
    def uses_a_pool() -> list[int]:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            first = pool.map(abs, range(-5, 0))
        with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
            second = list(executor.map(abs, range(-5, 0)))
        return first + second

    assert abi.get(uses_a_pool.remote(), timeout=30) == [5, 4, 3, 2, 1] * 2


def test_a_task_that_calls_setsid(program: Daemon, witness: Any) -> None:
    @abi.remote
    def leads() -> None:
        os.setsid()

    with pytest.raises(PermissionError):
        abi.get(leads.remote())
    before, found = after(leads)
    assert found == before


def test_a_task_that_uses_up_the_memory_it_limited(program: Daemon, witness: Any) -> None:
    @abi.remote(max_retries=0)
    def exhausts(hard: bool) -> int:
        used = rss_bytes(os.getpid())
        limit = used + (400 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit if hard else resource.RLIM_INFINITY))
        kept = []
        while True:
            kept.append(bytearray(16 << 20))

    for hard in (False, True):
        with pytest.raises(MemoryError):
            abi.get(exhausts.remote(hard), timeout=20)
        found = abi.get(look_around.remote(), timeout=10)
        assert found["address_space"] == resource.getrlimit(resource.RLIMIT_AS), "the next one is not limited"


def test_a_task_that_fills_the_memory_to_the_last_byte(program: Daemon, witness: Any) -> None:
    """Even its failure cannot be described any more; an error comes all the same, and others go on."""

    @abi.remote(max_retries=0)
    def fills() -> None:
        kept: list[Any] = []
        resource.setrlimit(resource.RLIMIT_AS, (rss_bytes(os.getpid()) + (300 << 20),) * 2)
        size = 1 << 24
        while size > 16:
            try:
                while True:
                    kept.append(bytearray(size))
            except MemoryError:
                size //= 2
        globals()["kept"] = kept  # so that it is not given back
        raise ValueError("no room for this")

    with pytest.raises(errors.TaskError):
        abi.get(fills.remote(), timeout=20)
    assert abi.get(look_around.remote(), timeout=10)["address_space"] == resource.getrlimit(resource.RLIMIT_AS)


def test_recursion_without_end(program: Daemon, witness: Any) -> None:
    @abi.remote
    def endless() -> int:
        def deeper(n: int) -> int:
            return deeper(n + 1)

        return deeper(0)

    with pytest.raises(RecursionError):
        abi.get(endless.remote())
    before, found = after(endless)
    assert found == before


def test_a_task_that_speaks_on_its_workers_connection(program: Daemon, witness: Any) -> None:
    @abi.remote(max_retries=1)
    def babbles() -> None:
        for name in os.listdir("/proc/self/fd"):
            try:
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    sock.send(b"\xff" * 64)
            except OSError:
                continue
        time.sleep(10)

    with pytest.raises(errors.WorkerCrashedError, match="broke the protocol"):
        abi.get(babbles.remote(), timeout=20)
    assert abi.get(look_around.remote(), timeout=10)["stdout"] == 1


def test_a_task_that_stops_its_worker_is_ended_by_its_time_limit(ear: Ear) -> None:
    @abi.remote(timeout=0.2)
    def stops() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    with inside(config="[workers]\ninterrupt_grace_ms = 100\n"):
        with pytest.raises(errors.TaskTimedOut):
            abi.get(stops.remote(), timeout=10)
        assert abi.get(look_around.remote(), timeout=10)["stdout"] == 1


def test_a_task_that_kills_its_zygote_each_time_ends_by_and_by(tmp_path: Path, ear: Ear) -> None:
    """Nobody is charged for the death of a zygote, and yet it must not go on for ever."""
    log, gate = str(tmp_path / "log"), str(tmp_path / "gate")

    @abi.remote(max_retries=3)
    def kills() -> None:
        note(log, "start")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(10)

    with inside(config="[tasks]\nuncharged_starts_max = 5\n") as daemon:
        with pytest.raises(errors.TaskLostError) as lost:
            abi.get(kills.remote(), timeout=60)
        assert "zygote" in str(lost.value)
        assert notes(log) == {"start": 6}, "the first, and five more"
        other = stay.remote("other", ear.path, gate)
        assert ear.hear() == "other"
        let_go(gate)
        assert abi.get(other) == "other"
        assert alive(daemon.pid)


def test_a_task_that_breaks_the_library_under_it(shared: Daemon) -> None:
    """Clears modules and replaces builtins: its own matter, and its worker's. Tasks in the others go on."""

    @abi.remote(max_retries=0)
    def breaks(how: str) -> str:
        import builtins

        if how == "modules":
            sys.modules.clear()
        elif how == "path":
            sys.path.clear()
        elif how == "open":
            builtins.open = None  # type: ignore[assignment]
        elif how == "print":
            builtins.print = None  # type: ignore[assignment]
        elif how == "exit":
            import atexit

            atexit.register(os._exit, 5)
        return how

    for how in ("modules", "path", "open", "print", "exit"):
        with session(shared), contextlib.suppress(errors.TaskError):
            assert abi.get(breaks.remote(how), timeout=10) == how
    with session(shared):
        assert abi.get(look_around.remote(), timeout=10)["stdout"] == 1


def test_results_and_exceptions_that_bite_when_they_are_pickled_or_dropped(program: Daemon, witness: Any) -> None:
    class DiesWhenPickled:
        def __reduce__(self) -> Any:
            os._exit(3)

    class RaisesWhenDropped:
        def __del__(self) -> None:
            raise SystemExit(4)

    class RaisesExit:
        def __reduce__(self) -> Any:
            raise SystemExit(5)

    @abi.remote(max_retries=0)
    def returns(what: str) -> Any:
        if what == "dies":
            return DiesWhenPickled()
        if what == "exits":
            return RaisesExit()
        kept = RaisesWhenDropped()
        return str(type(kept).__name__)

    with pytest.raises(errors.TaskLostError, match="exit code 3"):
        abi.get(returns.remote("dies"), timeout=10)
    with pytest.raises(errors.TaskError, match="SystemExit"):
        abi.get(returns.remote("exits"), timeout=10)
    assert abi.get(returns.remote("drops"), timeout=10) == "RaisesWhenDropped"
    assert abi.get(look_around.remote(), timeout=10)["stdout"] == 1


def test_workers_are_children_of_their_zygote_and_leaders_of_their_own_session(program: Daemon) -> None:
    """A Ctrl-C in the program's terminal is the program's, not its workers'."""

    @abi.remote
    def who() -> tuple[int, int, int]:
        return os.getpid(), os.getsid(0), os.getppid()

    pid, sid, zygote = abi.get(who.remote())
    assert sid == pid
    assert sid != os.getsid(0)
    assert parent_of(zygote) == program.pid


def test_a_worker_whose_task_left_a_process_behind_leaves_all_the_same(ear: Ear) -> None:
    """At the end of Python ``multiprocessing`` waits for its children. With room for one process, the next call waits
    for this worker's end."""

    @abi.remote(max_calls=1)
    def leaves_a_child(n: int) -> int:
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
        return n

    soon = "import abid.core.cancel\nabid.core.cancel.LEAVE_NS = 100_000_000"
    with inside(config="[workers]\nprocesses_max = 1\n", before=soon):
        assert [abi.get(leaves_a_child.remote(n), timeout=20) for n in range(4)] == [0, 1, 2, 3]
