"""Limits on what one program may have under way: it waits, or is told; nothing grows, and nothing is stuck."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, eventually
from tests.system.scripts import memory_bytes, output_of, start_script, status
from tests.system.work import await_file, echo, sleep

KIB, MIB = 1 << 10, 1 << 20
TASKS_MAX = 50
HEAD = f"""
import sys; sys.path.insert(1, {str(Path(__file__).parents[2])!r})
import os, signal, threading, time
import abi
from tests.system.work import await_file, echo, make, sleep
"""


@pytest.fixture(scope="module")
def narrow() -> Iterator[Daemon]:
    """A daemon with little room, and this process as its program."""
    made = Daemon(config=f"[queue]\ntasks_max = {TASKS_MAX}\nbytes_max = {MIB}\nnested_reserve = 200\n")
    abi.shutdown()
    abi.init(address=str(made.runtime_dir))
    yield made
    abi.shutdown()
    made.close()


def open_tasks(daemon: Daemon) -> int:
    tasks = status(daemon)["tasks"]
    return int(tasks["waiting"] + tasks["queued"] + tasks["running"])


def test_remote_waits_until_there_is_room(narrow: Daemon, tmp_path: Path) -> None:
    gate = str(tmp_path / "go")
    submitted: list[Any] = []

    def submit() -> None:
        submitted.extend(await_file.remote(gate, n) for n in range(TASKS_MAX))
        submitted.extend(echo.remote(n) for n in range(200))

    thread = threading.Thread(target=submit)
    thread.start()
    eventually(lambda: open_tasks(narrow) == TASKS_MAX, "the queue is full")
    eventually(lambda: len(submitted) == TASKS_MAX == open_tasks(narrow), "the program knows all of these")
    thread.join(0.1)
    assert thread.is_alive(), "it waits for room"
    assert len(submitted) == TASKS_MAX
    Path(gate).touch()
    thread.join(20)
    assert not thread.is_alive()
    assert abi.get(submitted) == [*range(TASKS_MAX), *range(200)]


def test_the_number_under_way_never_exceeds_the_limit(narrow: Daemon) -> None:
    refs = []
    for n in range(20 * TASKS_MAX):
        refs.append(echo.remote(n))
        assert len(abi.wait(refs[-TASKS_MAX - 5 :], num_returns=1, timeout=0)[1]) <= TASKS_MAX + 5
        if n % 500 == 0:
            assert open_tasks(narrow) <= TASKS_MAX
    assert abi.get(refs) == list(range(20 * TASKS_MAX))


def test_several_threads_at_the_limit(narrow: Daemon) -> None:
    problems: list[int] = []

    def work(number: int) -> None:
        refs = [echo.remote(number + n) for n in range(500)]
        if abi.get(refs) != [number + n for n in range(500)]:
            problems.append(number)

    threads = [threading.Thread(target=work, args=(n * 1000,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []


def test_on_full_raise_tells_when_to_try_again(narrow: Daemon, tmp_path: Path) -> None:
    gate = str(tmp_path / "go")
    eager = echo.options(on_full="raise")
    waiting = [await_file.remote(gate) for _ in range(TASKS_MAX)]
    for arguments in ((), (1,)):
        with pytest.raises(errors.QueueFullError) as caught:
            eager.remote(*arguments)
        assert isinstance(caught.value, errors.Busy)
        assert caught.value.retry_after_ms > 0
        assert str(TASKS_MAX) in str(caught.value)
    Path(gate).touch()
    abi.get(waiting)
    assert abi.get(eager.remote("room again")) == "room again"


def test_arguments_count_by_their_bytes(narrow: Daemon, tmp_path: Path) -> None:
    gate = str(tmp_path / "go")
    waiting = [await_file.remote(gate, bytes(90 * KIB)) for _ in range(11)]
    with pytest.raises(errors.QueueFullError, match="bytes"):
        echo.options(on_full="raise").remote(bytes(90 * KIB))
    assert len(waiting) == 11
    Path(gate).touch()
    assert {len(value) for value in abi.get(waiting)} == {90 * KIB}
    assert len(abi.get(echo.remote(bytes(5 * MIB)))) == 5 * MIB, "more than all that may be: it goes alone"
    assert [len(value) for value in abi.get([echo.remote(bytes(300 * KIB)) for _ in range(20)])] == [300 * KIB] * 20


def test_parents_that_fill_the_queue_still_submit_children(narrow: Daemon) -> None:
    @abi.remote
    def parent(n: int) -> int:
        return sum(abi.get([echo.remote(n) for _ in range(4)]))

    refs = [parent.remote(n) for n in range(4 * TASKS_MAX)]
    assert abi.get(refs) == [4 * n for n in range(4 * TASKS_MAX)]


def test_beyond_the_reserve_a_task_is_told_that_the_queue_is_full(narrow: Daemon, tmp_path: Path) -> None:
    gate = str(tmp_path / "go")

    @abi.remote
    def greedy() -> tuple[int, str, int]:
        refs = [await_file.remote(gate) for _ in range(1000)]
        abi.wait(refs, num_returns=1)  # until then, only a refusal ends one
        Path(gate).touch()
        refused = [ref for ref in refs if _failed(ref)]
        try:
            abi.get(refused)
        except errors.Busy as error:
            return len(refs) - len(refused), type(error).__name__, error.retry_after_ms
        return len(refs), "none", 0

    def _failed(ref: abi.Ref[Any]) -> bool:
        try:
            abi.get(ref)
        except errors.AbiError:
            return True
        return False

    admitted, name, retry_after_ms = abi.get(greedy.remote())
    assert 200 <= admitted < 1000
    assert (name, retry_after_ms > 0) == ("QueueFullError", True)
    assert abi.get(echo.remote("goes on")) == "goes on"


def test_map_at_the_limit(narrow: Daemon) -> None:
    assert list(abi.map(echo, range(2000), chunk=1)) == list(range(2000))


def test_cancelled_and_failed_tasks_make_room(narrow: Daemon, tmp_path: Path) -> None:
    waiting = [await_file.remote(str(tmp_path / "never")) for _ in range(TASKS_MAX)]
    threading.Timer(0.1, lambda: [abi.cancel(ref) for ref in waiting]).start()
    assert abi.get(echo.remote("room")) == "room"
    with pytest.raises(errors.TaskCancelledError):
        abi.get(waiting)


def test_ctrl_c_while_there_is_no_room(narrow: Daemon) -> None:
    script = (
        HEAD
        + f"""
gate = sys.argv[1]
refs = [await_file.remote(gate, n) for n in range({TASKS_MAX})]
try:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    echo.remote("too much")
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted")
open(gate, "w").close()
print(abi.get(refs) == list(range({TASKS_MAX})), abi.get(echo.remote("fits")))
"""
    )
    assert output_of(narrow, script, str(narrow.folder / "gate")) == "interrupted\nTrue fits\n"


def test_programs_do_not_take_one_anothers_room(narrow: Daemon, tmp_path: Path) -> None:
    waiting = [sleep.options(num_cpus=0).remote(60) for _ in range(TASKS_MAX)]
    try:
        script = HEAD + f"print(sum(abi.get([echo.remote(1) for _ in range({4 * TASKS_MAX})])))"
        assert output_of(narrow, script) == f"{4 * TASKS_MAX}\n"
    finally:
        for ref in waiting:
            abi.cancel(ref, force=True)
        abi.wait(waiting, num_returns=len(waiting))


# --- slow readers -----------------------------------------------------------------------------------------------------


def test_what_a_stopped_program_does_not_read_stays_bounded() -> None:
    """A hundred megabytes for a program that reads nothing: what waits is bounded, and all comes in the end."""
    daemon = Daemon(config=f"[queue]\nunread_results_bytes_max = {4 * MIB}\n")
    try:
        script = (
            HEAD
            + """
assert abi.get(echo.remote(1)) == 1
refs = [make.remote(90_000) for _ in range(1500)]
abi.wait(refs[:1])
print("stopping", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
total = 0
while refs:
    total += sum(map(len, abi.get(refs[:500])))
    del refs[:500]
print(total, flush=True)
"""
        )
        started = start_script(daemon, script)
        try:
            started.await_out(b"stopping")
            before = memory_bytes(daemon.pid)

            def is_still() -> bool:
                ended = status(daemon)["ends"]["ok"]
                time.sleep(0.15)
                return bool(ended == status(daemon)["ends"]["ok"])

            eventually(is_still, "the program's tasks are held back")
            assert memory_bytes(daemon.pid) - before < 64 * MIB
            assert status(daemon)["ends"]["ok"] < 1000
            other = output_of(daemon, HEAD + "print(abi.get([echo.remote(n) for n in range(100)])[-1])")
            assert other == "99\n", "nobody else is held back"
            started.signal(signal.SIGCONT)
            assert started.wait() == 0, started.err
        finally:
            started.close()
        assert started.out.endswith(b"135000000\n")
    finally:
        daemon.close()


def test_large_results_of_a_stopped_program_stay_bounded() -> None:
    daemon = Daemon(config=f"[queue]\nunread_results_bytes_max = {16 * MIB}\n")
    try:
        script = (
            HEAD
            + """
assert abi.get(echo.remote(1)) == 1
refs = [make.remote(120_000) for _ in range(1500)]
abi.wait(refs[:1])
print("stopping", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
total = 0
while refs:
    total += sum(map(len, abi.get(refs[:50])))
    del refs[:50]
print(total, flush=True)
"""
        )
        started = start_script(daemon, script)
        try:
            started.await_out(b"stopping")

            def is_still() -> bool:
                ended = status(daemon)["ends"]["ok"]
                time.sleep(0.15)
                return bool(ended == status(daemon)["ends"]["ok"])

            eventually(is_still, "the program's tasks are held back")
            assert status(daemon)["ends"]["ok"] < 1000
            started.signal(signal.SIGCONT)
            assert started.wait() == 0, started.err
        finally:
            started.close()
        assert started.out.endswith(b"180000000\n")
    finally:
        daemon.close()
