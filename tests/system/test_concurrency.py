"""Threads, event loops, other programs, forks, Ctrl-C, ends with work in flight, and a daemon that comes back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import WAIT_S, Daemon, alive, await_gone, eventually
from tests.system.scripts import output_of, run_script, start_script, status
from tests.system.work import await_file, echo, fail, sleep

HEAD = f"""
import sys; sys.path.insert(1, {str(Path(__file__).parents[2])!r})
import asyncio, os, signal, sys, threading, time
import abi
from tests.system.work import await_file, echo, fail, pid, sleep
"""

PATIENT = """
import abi.returning
abi.returning.RETURN_SECONDS = 100
"""
"""For a program that is to see the next daemon, however long that takes to start."""

MAY_FORK = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
"""From 3.12 on Python warns of every fork of a process with threads, and ours has one of our own."""


# --- threads ----------------------------------------------------------------------------------------------------------


def test_eight_threads_submit_and_get(program: Daemon) -> None:
    problems: list[str] = []

    def work(number: int) -> None:
        expected = list(range(number * 10_000, number * 10_000 + 250))
        for _ in range(10):
            if abi.get([echo.remote(n) for n in expected]) != expected:
                problems.append(f"thread {number}")  # noqa: PERF401
        for n in range(20):
            if abi.get(echo.remote(n)) != n:
                problems.append(f"thread {number}, alone")  # noqa: PERF401

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []


def test_threads_wait_for_refs_of_other_threads(program: Daemon, tmp_path: Path) -> None:
    gates = [tmp_path / str(n) for n in range(2)]
    refs = [await_file.remote(str(gate), n) for n, gate in enumerate(gates)]
    order: list[int] = []

    def wait(n: int) -> None:
        order.append(abi.get(refs[n]))

    threads = [threading.Thread(target=wait, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    gates[1].touch()
    threads[1].join(WAIT_S)
    assert order == [1], "the one that leads hands on what is the other's"
    gates[0].touch()
    threads[0].join(WAIT_S)
    assert order == [1, 0]


def test_a_thread_that_times_out_hands_over(program: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    ref = await_file.remote(str(gate), 5)
    done: list[Any] = []

    def short() -> None:
        with pytest.raises(errors.GetTimeoutError):
            abi.get(ref, timeout=0.05)
        done.append("timed out")

    def long() -> None:
        done.append(abi.get(ref))

    threads = [threading.Thread(target=run) for run in (short, long, short)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(done) == 2, "two timeouts")
    gate.touch()
    for thread in threads:
        thread.join(WAIT_S)
    assert done == ["timed out", "timed out", 5]


def test_callbacks_of_futures_may_use_abi(program: Daemon) -> None:
    """They run in whichever thread receives; they may submit, and even wait."""
    results: list[Any] = []
    event = threading.Event()

    def again(future: concurrent.futures.Future[int]) -> None:
        results.append(abi.get(echo.remote(future.result() + 1)))
        event.set()

    sleep.remote(0.02, 1).future().add_done_callback(again)
    assert event.wait(WAIT_S)
    assert results == [2]
    event.clear()
    sleep.remote(0.02, 1).future().add_done_callback(again)
    assert abi.get(sleep.remote(0.1, "meanwhile")) == "meanwhile"
    assert event.wait(WAIT_S)
    assert results == [2, 2]


def test_futures_work_with_the_standard_library(program: Daemon) -> None:
    futures = [echo.remote(n).future() for n in range(50)]
    done, rest = concurrent.futures.wait(futures, timeout=WAIT_S)
    assert (len(done), len(rest)) == (50, 0)
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures)) == list(range(50))


# --- asyncio ----------------------------------------------------------------------------------------------------------


def test_await_gather_and_wait_for(program: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "go"

    async def main() -> None:
        assert await echo.remote(1) == 1
        assert await asyncio.gather(*(echo.remote(n) for n in range(200))) == list(range(200))
        with pytest.raises(ValueError, match="told"):
            await fail.remote("told")
        ref = await_file.remote(str(gate), 6)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref, 0.05)  # type: ignore[arg-type]
        waiting = asyncio.ensure_future(ref)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.touch()
        assert await ref == 6, "neither ended the task"
        assert await asyncio.wrap_future(echo.remote(7).future()) == 7
        assert [await first for first in asyncio.as_completed([echo.remote(8)])] == [8]  # type: ignore[list-item]

    asyncio.run(main())


def test_the_loop_goes_on_while_refs_are_awaited(program: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "go"

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while not gate.exists():
                ticks += 1
                await asyncio.sleep(0.001)
                if ticks == 20:
                    gate.touch()

        _, value = await asyncio.gather(tick(), await_file.remote(str(gate), 3))
        assert ticks == 20
        return value

    assert asyncio.run(main()) == 3


def test_several_loops_in_several_threads(program: Daemon) -> None:
    async def main(n: int) -> list[int]:
        return list(await asyncio.gather(*(echo.remote(n * 100 + at) for at in range(100))))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: asyncio.run(main(n)), range(4)))
    assert results == [[n * 100 + at for at in range(100)] for n in range(4)]


def test_a_loop_that_is_closed_while_it_awaited(program: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    ref = await_file.remote(str(gate), 1)
    waiting: list[asyncio.Future[int]] = []

    async def leave() -> None:
        waiting.append(asyncio.ensure_future(ref))  # type: ignore[arg-type]
        await asyncio.sleep(0)

    asyncio.run(leave())
    gate.touch()
    assert abi.get(ref) == 1


# --- programs beside each other ---------------------------------------------------------------------------------------


def test_two_programs_share_one_daemon_fairly(shared: Daemon) -> None:
    """The second comes when the first has work for a minute queued, and does not wait for it."""
    script = (
        HEAD
        + """
count = int(sys.argv[1])
refs = [sleep.remote(0.005, n) for n in range(count)]
print("queued", flush=True)
assert abi.get(refs) == list(range(count))
"""
    )
    path = shared.folder / "program.py"
    path.write_text(script)
    first = start_script(shared, path, "24000")
    try:
        first.await_out(b"queued")
        assert output_of(shared, path, "20") == "queued\n"
        assert first.process.poll() is None, "it ends long before the first"
    finally:
        first.close()


def test_a_fork_is_a_program_of_its_own(shared: Daemon) -> None:
    script = (
        HEAD
        + """
import multiprocessing

def child(queue, inherited):
    try:
        abi.get(inherited)
    except abi.errors.SessionLost as error:
        queue.put("inherited reference: " + type(error).__name__)
    queue.put(abi.get([echo.remote(n) for n in range(100)]) == list(range(100)))

if __name__ == "__main__":
    assert abi.get(echo.remote(0)) == 0
    running = sleep.remote(0.3, "still mine")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=child, args=(queue, running)) for _ in range(3)]
    for process in processes:
        process.start()
    said = sorted((queue.get(timeout=20) for _ in range(6)), key=str)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    print(said)
    print(abi.get(running), abi.get([echo.remote(n) for n in range(3)]), flush=True)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    print(abi.get(echo.remote("after a child that did nothing")), flush=True)
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    print(abi.get(echo.remote("after a child that ended as Python does")))
"""
    )
    before = status(shared)["sessions"]
    lines = output_of(shared, script, env=MAY_FORK).splitlines()
    assert lines[0] == str([True] * 3 + ["inherited reference: SessionLost"] * 3)
    assert lines[1:] == [
        "still mine [0, 1, 2]",
        "after a child that did nothing",
        "after a child that ended as Python does",
    ]
    eventually(lambda: status(shared)["sessions"] == before, "every session ended with its process")


def test_a_fork_while_other_threads_wait(shared: Daemon) -> None:
    """The child must not find a lock that nobody will release."""
    script = (
        HEAD
        + """
def waits():
    for n in range(60):
        assert abi.get(sleep.remote(0.005, n)) == n

abi.get(echo.remote(0))  # a fork in the middle of an import is beyond help in any Python program
threads = [threading.Thread(target=waits) for _ in range(3)]
for thread in threads:
    thread.start()
for n in range(4):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        ok = abi.get(echo.remote(n)) == n
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0, n
for thread in threads:
    thread.join()
print("fine")
"""
    )
    assert output_of(shared, script, env=MAY_FORK) == "fine\n"


def test_a_process_pool_uses_abi(shared: Daemon) -> None:
    script = (
        HEAD
        + """
from concurrent.futures import ProcessPoolExecutor

def work(n):
    return abi.get(echo.remote(n))

if __name__ == "__main__":
    for method in ("forkserver",):
        import multiprocessing
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            print(list(pool.map(work, range(4))))
"""
    )
    assert output_of(shared, script) == "[0, 1, 2, 3]\n"


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_in_get_and_then_on(shared: Daemon) -> None:
    script = (
        HEAD
        + """
ref = await_file.remote(sys.argv[1], "there")
for wait in (lambda: abi.get(ref), lambda: abi.wait([ref]), lambda: abi.get([ref, echo.remote(1)])):
    try:
        print("waiting", flush=True)
        wait()
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted", abi.get(echo.remote("goes on")), flush=True)
open(sys.argv[1], "w").close()
print(abi.get(ref))
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    )
    started = start_script(shared, script, str(shared.folder / "gate"))
    try:
        for n in range(1, 4):
            while started.out.count(b"waiting") < n:
                assert started._read_one(), started.err
            time.sleep(0.05)  # it may be anywhere around its wait: each place must do
            started.signal(signal.SIGINT)
            while started.out.count(b"goes on") < n:
                assert started._read_one(), started.err
        assert started.wait() == 0, started.err
    finally:
        started.close()
    assert started.out.endswith(b"there\n")
    assert started.err == b""


def test_ctrl_c_at_any_moment_loses_nothing(shared: Daemon) -> None:
    """A program interrupts itself hundreds of times, wherever it is, and then finds all as it should be. Its handler
    raises only where somebody catches."""
    script = (
        HEAD
        + """
caught = 0
refs = []
armed = False

def strike(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

def interrupts():
    while (caught < 200 or len(refs) < 500) and time.monotonic() < end:
        before = len(refs)
        os.kill(os.getpid(), signal.SIGINT)
        while len(refs) == before and time.monotonic() < end:
            time.sleep(0.002)

signal.signal(signal.SIGINT, strike)
abi.get(echo.remote(0))
end = time.monotonic() + 15
thread = threading.Thread(target=interrupts)
thread.start()
while thread.is_alive():
    try:
        while thread.is_alive():
            armed = True
            refs.append((echo.remote(len(refs)), len(refs)))
            if len(refs) % 10 == 0:
                abi.get([ref for ref, _ in refs[-10:]])
        armed = False
    except KeyboardInterrupt:
        caught += 1
thread.join()
assert abi.get([ref for ref, _ in refs]) == [n for _, n in refs]
print(caught > 20, len(refs) > 50)
del refs
"""
    )
    assert output_of(shared, script) == "True True\n"
    eventually(lambda: status(shared)["tasks"]["running"] == 0, "nothing runs on")


def test_a_program_that_ctrl_c_ends_is_not_waited_for(shared: Daemon) -> None:
    script = (
        HEAD
        + """
ref = sleep.remote(60)
print("waiting", flush=True)
abi.get(ref)
"""
    )
    started = start_script(shared, script)
    try:
        started.await_out(b"waiting")
        time.sleep(0.05)
        started.signal(signal.SIGINT)
        assert started.wait() in (-signal.SIGINT, 130)
    finally:
        started.close()
    assert started.err.rstrip().endswith(b"KeyboardInterrupt")
    eventually(lambda: status(shared)["tasks"]["running"] == 0, "its work was cancelled")


# --- ends with work in flight -----------------------------------------------------------------------------------------

WAYS_OUT = {
    "as Python does": "",
    "shutdown": "abi.shutdown()",
    "from a function with refs": "def f():\n    kept = [sleep.remote(60) for _ in range(100)]\n    sys.exit(0)\nf()",
    "futures and refs in a cycle": "futures = [ref.future() for ref in refs]; loop = [refs]; loop.append(loop); del refs",  # noqa: E501
    "with threads that wait": (
        "def wait():\n    try:\n        abi.get(refs[0])\n    except abi.errors.SessionLost:\n        pass\n"
        "threading.Thread(target=wait, daemon=True).start(); time.sleep(0.05)"
    ),
    "with output under way": (
        "@abi.remote\ndef talk():\n    while True:\n        print('word')\n"
        "talk.remote(); time.sleep(0.2); sys.stdout.flush()"
    ),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_program_ends_fast_and_quietly_with_work_in_flight(shared: Daemon, way: str) -> None:
    script = HEAD + "refs = [sleep.remote(60) for _ in range(2000)]\nabi.put(bytes(10**6))\n" + WAYS_OUT[way] + "\n"
    before = status(shared)
    done = run_script(shared, script)
    assert (done.returncode, done.stderr) == (0, "")

    def is_over() -> bool:
        now = status(shared)
        kept = ("waiting", "queued", "running", "held")
        return now["sessions"] == before["sessions"] and all(now["tasks"][k] == before["tasks"][k] for k in kept)

    eventually(is_over, "its session is over, and nothing of it is left")


def test_a_thread_that_is_not_a_daemon_may_finish_its_work(shared: Daemon) -> None:
    script = (
        HEAD
        + """
def work():
    time.sleep(0.1)
    print(abi.get([sleep.remote(0.01, n) for n in range(5)]))
threading.Thread(target=work).start()
"""
    )
    assert output_of(shared, script) == "[0, 1, 2, 3, 4]\n"


def test_what_was_sent_before_sleeping_runs_and_prints(shared: Daemon) -> None:
    script = (
        HEAD
        + """
@abi.remote
def talk(n):
    print("word", n)
heard = []
class Ear:
    def write(self, text):
        heard.append(text)
        return sys.__stdout__.write(text)
    def flush(self):
        sys.__stdout__.flush()
sys.stdout = Ear()
for n in range(3):
    talk.remote(n)
ends = time.monotonic() + 20
while "".join(heard).count("\\n") < 3 and time.monotonic() < ends:
    time.sleep(0.01)
"""
    )
    lines = output_of(shared, script).splitlines()
    assert sorted(line.split(") ")[1] for line in lines) == ["word 0", "word 1", "word 2"]
    assert all(line.startswith("(talk ") for line in lines)


# --- a daemon that comes back -----------------------------------------------------------------------------------------


def test_a_program_rides_through_a_restart(daemon: Daemon) -> None:
    script = (
        HEAD
        + PATIENT
        + """
folder = sys.argv[1]

@abi.remote
def note(n, behind=None):
    with open(os.path.join(folder, str(n)), "a") as file:
        file.write("x")
    return n

put = abi.put([1, 2, 3])
large = abi.put(bytes(10**6))
one, two = echo.options(num_returns=2).remote([bytes(10**6), "small"])
assert len(abi.get([one, two])) == 2
early = [note.remote(n) for n in range(100)]
assert abi.get(early) == list(range(100))
gate = await_file.remote(os.path.join(folder, "gate"))
late = [note.remote(n, gate) for n in range(100, 200)]
chain = echo.remote(echo.remote(gate))
uses_put = echo.remote(put)
holds = [echo.remote([put]), echo.remote(gate)]
print("ready", flush=True)
sys.stdin.readline()
assert abi.get(late) == list(range(100, 200))
assert abi.get(early) == list(range(100)), "what had ended is here"
assert abi.get([put, uses_put, chain]) == [[1, 2, 3], [1, 2, 3], None]
assert len(abi.get(echo.remote(large))) == 10**6, "an object that only the old daemon had is supplied again"
assert abi.get(echo.remote(early[5])) == 5
assert abi.get(echo.remote(two)) == "small" and len(abi.get(echo.remote(one))) == 10**6, "one of several results, too"
assert abi.get([note.remote(n) for n in range(200, 300)]) == list(range(200, 300))
print("through", flush=True)
"""
    )
    folder = daemon.folder / "notes"
    folder.mkdir()
    started = start_script(daemon, script, str(folder), stdin=subprocess.PIPE)
    try:
        started.await_out(b"ready")
        for number in (signal.SIGKILL, signal.SIGTERM):
            daemon.kill(number)
            if number == signal.SIGTERM:
                daemon.await_log("draining")
                daemon.kill(number)
            daemon.wait()
            daemon.start()
        (folder / "gate").touch()
        assert started.process.stdin is not None
        started.process.stdin.write(b"\n")
        started.process.stdin.flush()
        assert started.wait() == 0, started.err
    finally:
        started.close()
    assert started.out.endswith(b"through\n")
    written = {path.name: len(path.read_text()) for path in folder.iterdir() if path.name != "gate"}
    assert sorted(map(int, written)) == list(range(300))
    assert all(written[str(n)] == 1 for n in (*range(100), *range(200, 300))), "what had ended does not run again"


def test_a_task_in_the_middle_starts_again_after_a_restart(daemon: Daemon) -> None:
    script = (
        HEAD
        + PATIENT
        + """
@abi.remote
def twice(folder):
    n = len(os.listdir(folder))
    open(os.path.join(folder, str(n)), "w").close()
    if n == 0:
        time.sleep(60)
    return abi.current_task().attempt

print(abi.get(twice.remote(sys.argv[1])))
"""
    )
    folder = daemon.folder / "starts"
    folder.mkdir()
    started = start_script(daemon, script, str(folder))
    try:
        eventually(lambda: len(list(folder.iterdir())) == 1, "it has started once")
        daemon.kill()
        daemon.wait()
        daemon.start()
        assert started.wait() == 0, started.err
    finally:
        started.close()
    assert len(list(folder.iterdir())) == 2


def test_started_once_and_lost_with_the_daemon(daemon: Daemon) -> None:
    script = (
        HEAD
        + PATIENT
        + """
@abi.remote(max_retries=0)
def once(folder, word):
    open(os.path.join(folder, word), "a").write("x")
    time.sleep(60)

running = [once.remote(sys.argv[1], word) for word in "ab"]
queued = echo.options(max_retries=0).remote("was not started")
try:
    abi.get(running)
except abi.errors.TaskLostError as error:
    print(error)
print(abi.get(queued))
"""
    )
    folder = daemon.folder / "starts"
    folder.mkdir()
    started = start_script(daemon, script, str(folder))
    try:
        eventually(lambda: [path.read_text() for path in folder.iterdir()] == ["x", "x"], "both have started")
        daemon.kill()
        daemon.wait()
        daemon.start()
        assert started.wait() == 0, started.err
    finally:
        started.close()
    assert b"max_retries" in started.out
    assert started.out.endswith(b"was not started\n")
    assert {path.read_text() for path in folder.iterdir()} == {"x"}


def test_a_daemon_that_does_not_come_back_is_said_so(daemon: Daemon) -> None:
    script = (
        HEAD
        + """
import abi.returning
abi.returning.RETURN_SECONDS = 0.5
abi.get(echo.remote(1))
refs = [sleep.remote(60) for _ in range(5)]
print("ready", flush=True)
for _ in range(2):
    try:
        abi.get(refs)
    except abi.errors.SessionLost as error:
        print("lost:", error.message)
try:
    echo.remote(1)
except abi.errors.SessionLost as error:
    print("lost too")
abi.shutdown()
"""
    )
    started = start_script(daemon, script)
    try:
        started.await_out(b"ready")
        daemon.kill()
        daemon.wait()
        assert started.wait() == 0, started.err
    finally:
        started.close()
    lines = started.out.decode().splitlines()
    assert lines[1].startswith("lost: ")
    assert "nobody answered" in lines[1]
    assert lines[3] == "lost too"
    assert started.err == b""


def test_a_program_killed_with_9_leaves_nothing(daemon: Daemon) -> None:
    script = (
        HEAD
        + """
refs = [sleep.remote(60) for _ in range(500)]
print(*abi.get([pid.remote() for _ in range(0)]), "ready", flush=True)
time.sleep(60)
"""
    )
    started = start_script(daemon, script)
    try:
        started.await_out(b"ready")
        workers = eventually(lambda: [p for p in daemon.processes() if p != daemon.pid], "workers")
        started.process.kill()
        started.wait()
    finally:
        started.close()
    eventually(lambda: status(daemon)["workers"]["total"] == 0, "its workers are gone")
    assert status(daemon)["tasks"]["queued"] == 0
    assert alive(daemon.pid)
    assert workers
    await_gone([])
