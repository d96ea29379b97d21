"""Workers: a session's own, in the world of its program; how they are filled, emptied again, and let go."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import abi
from abi import ids
from tests.system.harness import Daemon, await_gone, command_line, eventually
from tests.system.inside import inside, run, session, start
from tests.system.tasks import stay
from tests.system.words import Ear, hold, let_go, note, notes


@pytest.fixture
def program(shared: Daemon) -> Iterator[Daemon]:
    """A session, and so workers, for each test."""
    with session(shared):
        yield shared


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


# Which tasks stand behind which.


def test_no_short_task_waits_behind_a_long_one(program: Daemon, tmp_path: Path) -> None:
    """What lies in the same batch behind one that does not end is taken back from there, and ends before it."""
    starts, gate = str(tmp_path / "starts"), str(tmp_path / "gate")

    @abi.remote
    def task(n: int) -> None:
        note(starts, n)
        if n == 50:
            hold(gate)

    refs = [task.remote(n) for n in range(400)]
    abi.get(refs[:50] + refs[51:], timeout=20)  # it is held for longer
    let_go(gate)
    abi.get(refs[50])
    assert notes(starts) == Counter(str(n) for n in range(400)), "each ran exactly once"


def test_what_was_taken_back_runs_once_and_keeps_its_first_attempt(program: Daemon, tmp_path: Path) -> None:
    """A worker that blocks in get() gives away what stands behind it: hundreds of recalls, and nothing runs twice."""
    starts = str(tmp_path / "starts")

    @abi.remote
    def small(n: int) -> int:
        note(starts, f"small{n}")
        task = abi.current_task()
        assert task is not None
        return task.attempt

    @abi.remote
    def task(n: int) -> int:
        note(starts, n)
        running = abi.current_task()
        assert running is not None
        return running.attempt + (0 if n % 10 else abi.get(small.remote(n)) - 1)

    attempts = abi.get([task.remote(n) for n in range(1000)], timeout=30)
    assert set(attempts) == {1}
    expected = [str(n) for n in range(1000)] + [f"small{n}" for n in range(0, 1000, 10)]
    assert notes(starts) == Counter(expected)


# The program's world.


def test_tasks_live_in_the_directory_environment_and_path_of_their_program(shared: Daemon, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside.py").write_text("def name():\n    return 'beside'\n")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "local.py").write_text("def name():\n    return 'local'\n")
    (tmp_path / "here" / "main.py").write_text("""
import os, sys, json
import abi
sys.path.append("../lib")          # relative, and only of this program
os.environ["COLOUR"] = "green"     # set by the program itself
import local

class Thing:                       # lives in __main__, travels by value
    size = 3

def helper():
    return Thing().size

@abi.remote
def world():
    import beside
    return [os.getcwd(), os.environ["COLOUR"], os.environ.get("SHADE"), beside.name(), local.name(), helper(),
            sys.argv[0], __name__, sys.modules["__main__"].__file__]

if __name__ == "__main__":
    print(json.dumps(abi.get(world.remote())))
""")
    main = str(tmp_path / "here" / "main.py")
    said = run(shared, main, cwd=tmp_path / "here", env={"SHADE": "dark"})
    expected = [str(tmp_path / "here"), "green", "dark", "beside", "local", 3, main, "__main__", main]
    assert json.loads(said) == expected


def test_an_edited_module_is_a_new_one_in_the_next_run(shared: Daemon, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text("import abi, edited\nprint(abi.get(abi.remote(edited.answer).remote()))\n")
    found = []
    for version in ("'first'", "'second, longer'", "'x'"):
        (tmp_path / "edited.py").write_text(f"def answer():\n    return {version}\n")
        found.append(run(shared, str(script), cwd=tmp_path).strip())
    assert found == ["first", "second, longer", "x"]


def test_two_programs_share_no_worker(shared: Daemon) -> None:
    text = """
import abi, os, time
@abi.remote
def pid(n):
    time.sleep(0.005)
    return os.getpid()
print(*set(abi.get([pid.remote(n) for n in range(20)])))
"""
    programs = [start(shared, "-c", text) for _ in range(2)]
    assert [program.wait() for program in programs] == [0, 0]
    first, second = (set(program.out.split()) for program in programs)
    assert first
    assert not first & second


def test_a_nested_task_belongs_to_the_programs_session(program: Daemon) -> None:
    @abi.remote
    def child() -> str:
        task = abi.current_task()
        assert task is not None
        return task.id

    @abi.remote
    def parent() -> tuple[str, str, bool]:
        ref = child.remote()
        return ref.id, abi.get(ref), os.environ.get("ABI_WORKER") == "1"

    ref = parent.remote()
    said, ran, in_worker = abi.get(ref)
    assert said == ran
    assert in_worker
    (ours, program_seq), (theirs, worker_seq) = (ids.split(ids.from_text(text)) for text in (ref.id, ran))
    assert ours == theirs
    assert ids.submitter_of(program_seq) == 0
    assert ids.submitter_of(worker_seq) > 0


def test_command_lines_show_what_a_worker_is_and_whose(program: Daemon) -> None:
    @abi.remote
    def pid() -> int:
        return os.getpid()

    shown = command_line(abi.get(pid.remote())).decode()
    assert "abi_worker" in shown
    assert str(program.runtime_dir) in shown


# How workers end.


def test_max_calls_is_the_most_that_one_worker_runs(program: Daemon) -> None:
    @abi.remote(max_calls=3)
    def pid(n: int) -> int:
        return os.getpid()

    @abi.remote
    def other() -> int:
        return os.getpid()

    pids = abi.get([pid.remote(n) for n in range(12)])
    abi.get([other.remote() for _ in range(50)])
    pids += abi.get([pid.remote(n) for n in range(12)])
    counts = Counter(pids)
    assert max(counts.values()) <= 3
    await_gone([worker for worker, count in counts.items() if count == 3])


def test_a_worker_that_rests_too_long_goes_and_the_next_task_gets_another() -> None:
    @abi.remote
    def pid() -> int:
        return os.getpid()

    with inside(config="[workers]\nidle_timeout_ms = 150\n") as daemon:
        first = abi.get(pid.remote())
        await_gone([first])
        eventually(lambda: daemon.ask("status")["workers"]["total"] == 0, "nobody is left")
        second = abi.get(pid.remote())
        assert second != first
        assert "ended: its worker ended with exit code 0" in daemon.log(), "it was asked to go, and went"


def test_workers_of_a_program_that_ended_end_with_it(shared: Daemon) -> None:
    worker = run(shared, "-c", "import abi, os\nprint(abi.get(abi.remote(os.getpid).remote()))")
    await_gone([int(worker)])


# Coroutine functions.


def test_coroutine_functions_run_and_await(program: Daemon) -> None:
    @abi.remote
    async def both(n: int) -> list[int]:
        meeting, there = asyncio.Event(), 0

        async def one(k: int) -> int:
            nonlocal there
            there += 1
            if there == 10:
                meeting.set()
            await meeting.wait()
            return k

        return await asyncio.gather(*(one(n + k) for k in range(10)))

    @abi.remote
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("lost")

    expected = [list(range(10)), list(range(10, 20))]
    assert abi.get([both.remote(0), both.remote(10)], timeout=20) == expected, "ten waited at once"
    with pytest.raises(KeyError, match="lost"):
        abi.get(fails.remote())


def test_what_a_coroutine_leaves_running_does_not_run_in_the_next_task(program: Daemon, tmp_path: Path) -> None:
    ended = str(tmp_path / "ended")

    @abi.remote
    async def leaves() -> int:
        async def straggler() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                note(ended, "cancelled")

        leaves.straggler = asyncio.create_task(straggler())  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return os.getpid()

    @abi.remote
    async def next_one() -> tuple[int, int]:
        return os.getpid(), len(asyncio.all_tasks())

    worker = abi.get(leaves.remote())
    assert notes(ended) == {"cancelled": 1}
    assert abi.get(next_one.remote()) == (worker, 1), "the same worker's loop holds this task alone"


def test_a_coroutine_may_await_references() -> None:
    @abi.remote
    def double(n: int) -> int:
        return 2 * n

    @abi.remote
    async def total() -> int:
        return sum(await abi.gather(*(double.remote(n) for n in range(10))))

    with inside(cpus=1):
        assert abi.get(total.remote(), timeout=20) == 90, "awaiting gives the processor back as get() does"


# Cards: the seam is there, the cards are a later matter.


def test_without_a_card_a_task_that_wants_one_is_refused_at_once(program: Daemon) -> None:
    @abi.remote(num_gpus=1)
    def never() -> None: ...

    with pytest.raises(abi.errors.Refused, match="asks for 1 GPU; this node has 0"):
        abi.get(never.remote(), timeout=5)


def test_a_task_that_waits_in_line_is_not_lost_when_its_program_is_busy(
    program: Daemon, ear: Ear, tmp_path: Path
) -> None:
    """The helper thread sends and receives while the program computes: f.remote(); compute() makes progress."""
    gate = str(tmp_path / "gate")
    refs = [stay.remote(str(n), ear.path, gate) for n in range(4)]
    assert len({ear.hear(), ear.hear()}) == 2
    let_go(gate)
    assert len({ear.hear(), ear.hear()}) == 2
    assert abi.get(refs) == ["0", "1", "2", "3"]
