"""References: graphs of tasks, borrowers, refs in results and closures, and that everything is let go in the end."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, eventually
from tests.system.scripts import descriptors_of, memory_bytes, output_of, status
from tests.system.work import await_file, echo, fail, total

pytestmark = pytest.mark.usefixtures("program", "let_go")

MIB = 1 << 20


def held(daemon: Daemon) -> int:
    """Ended tasks and objects that the daemon keeps because somebody refers to them."""
    return int(status(daemon)["tasks"]["held"])


def nothing_held(daemon: Daemon) -> None:
    gc.collect()
    eventually(lambda: held(daemon) == 0, "the daemon keeps nothing any more")


@pytest.fixture
def let_go(program: Daemon) -> Iterator[None]:
    """Whatever a test did, its references are let go with it: here, in the workers and in the daemon."""
    yield
    nothing_held(program)


@abi.remote
def increment(x: int) -> int:
    return x + 1


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_a_chain_of_a_thousand(program: Daemon) -> None:
    ref = increment.remote(0)
    for _ in range(999):
        ref = increment.remote(ref)
    assert abi.get(ref) == 1000
    del ref
    nothing_held(program)


def test_ten_thousand_refs_into_one_task(program: Daemon) -> None:
    refs = [echo.remote(1) for _ in range(10_000)]
    assert abi.get(total.remote(*refs)) == 10_000
    del refs
    nothing_held(program)


def test_ten_thousand_refs_in_a_list(program: Daemon) -> None:
    @abi.remote
    def add_up(refs: list[abi.Ref[int]]) -> int:
        return sum(abi.get(refs))

    refs = [echo.remote(1) for _ in range(10_000)]
    ref = add_up.remote(refs)
    del refs
    assert abi.get(ref) == 10_000
    del ref
    nothing_held(program)


def test_a_tree_of_a_thousand_leaves(program: Daemon) -> None:
    @abi.remote
    def plus(a: int, b: int) -> int:
        return a + b

    level = [echo.remote(1) for _ in range(1024)]
    while len(level) > 1:
        level = [plus.remote(*level[at : at + 2]) for at in range(0, len(level), 2)]
    assert abi.get(level[0]) == 1024
    del level
    nothing_held(program)


def test_a_tree_grown_by_tasks(program: Daemon) -> None:
    @abi.remote
    def grow(depth: int) -> int:
        if depth == 0:
            return 1
        return sum(abi.get([grow.remote(depth - 1), grow.remote(depth - 1)]))

    assert abi.get(grow.remote(5)) == 32
    nothing_held(program)


def test_one_ref_twice_in_one_call_and_in_many() -> None:
    ref = echo.remote(3)
    assert abi.get(total.remote(ref, ref, ref)) == 9
    assert abi.get([total.remote(ref, n) for n in range(50)]) == [3 + n for n in range(50)]


# --- failures of what is depended on ----------------------------------------------------------------------------------


def test_a_failed_dependency_is_the_failure_of_all_behind_it(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    @abi.remote
    def touch(_value: Any) -> None:
        mark.touch()

    source = fail.remote("the source")
    behind = [touch.remote(source)]
    for _ in range(50):
        behind.append(touch.remote(behind[-1]))
    for ref in (behind[0], behind[-1]):
        with pytest.raises(ValueError, match="the source") as caught:
            abi.get(ref)
        assert isinstance(caught.value, errors.TaskError)
        assert any("it never ran" in note and "fail" in note for note in caught.value.__notes__)
        assert len(caught.value.__notes__) < 8, "a long chain does not tell itself in full"
    assert not mark.exists()


def test_a_cancelled_dependency_is_the_end_of_all_behind_it(tmp_path: Path) -> None:
    first = echo.remote(await_file.remote(str(tmp_path / "never")))
    second = echo.remote(first)
    abi.cancel(first)
    with pytest.raises(errors.TaskCancelledError):
        abi.get(second, timeout=10)
    (tmp_path / "never").touch()


def test_a_failed_ref_in_a_list_is_raised_where_it_is_got() -> None:
    @abi.remote
    def tries(refs: list[abi.Ref[Any]]) -> str:
        try:
            abi.get(refs[0])
        except ValueError as error:
            return f"caught {type(error).__name__}"
        return "nothing"

    assert "caught" in abi.get(tries.remote([fail.remote("inside")]))


# --- borrowers --------------------------------------------------------------------------------------------------------


def test_a_ref_in_a_result_outlives_its_producer_and_the_outer_ref(program: Daemon) -> None:
    @abi.remote
    def producer() -> dict[str, Any]:
        return {"object": abi.put([1, 2, 3]), "task": echo.remote("made inside"), "large": abi.put(bytes(MIB))}

    outer = producer.remote()
    inner = abi.get(outer)
    del outer
    gc.collect()
    assert abi.get(echo.remote("another task in between")) == "another task in between"
    assert abi.get(inner["object"]) == [1, 2, 3]
    assert abi.get(inner["task"]) == "made inside"
    assert len(abi.get(inner["large"])) == MIB
    assert abi.get(echo.remote(inner["object"])) == [1, 2, 3], "as an argument, too"
    assert abi.get(echo.remote([inner["task"]]))[0] == inner["task"]
    del inner
    nothing_held(program)


def test_a_result_that_nobody_loads_lets_go_of_what_is_in_it(program: Daemon) -> None:
    @abi.remote
    def producer() -> list[Any]:
        return [abi.put(1), [abi.put(2)]]

    ref = producer.remote()
    abi.wait([ref])
    assert held(program) >= 3
    del ref
    nothing_held(program)


def test_refs_through_several_hands(program: Daemon) -> None:
    """Each level wraps the ref once more; only the outermost is kept by the program until it is unwrapped."""

    @abi.remote
    def wrap(depth: int) -> list[Any]:
        return [abi.put("core")] if depth == 0 else [wrap.remote(depth - 1)]

    value: Any = wrap.remote(6)
    for _ in range(7):
        value = abi.get(value)[0]
    assert abi.get(value) == "core"
    del value
    nothing_held(program)


def test_a_borrower_keeps_an_object_that_its_owner_let_go(program: Daemon, tmp_path: Path) -> None:
    @abi.remote
    def late(refs: list[Any], gate: str) -> Any:
        abi.get(await_file.remote(gate))
        return abi.get(refs[0])

    ref = abi.put("kept")
    reading = late.remote([ref], str(tmp_path / "go"))
    del ref
    gc.collect()
    abi.get(echo.remote(0))
    (tmp_path / "go").touch()
    assert abi.get(reading) == "kept"
    del reading
    nothing_held(program)


def test_a_worker_that_keeps_a_ref_in_a_global_keeps_its_object(program: Daemon) -> None:
    @abi.remote(num_cpus=2)
    def keep(refs: list[Any]) -> None:
        import tests.system.work as module

        module.kept = refs[0]  # type: ignore[attr-defined]

    @abi.remote(num_cpus=2)
    def use() -> Any:
        import tests.system.work as module

        return abi.get(module.__dict__.pop("kept")) if hasattr(module, "kept") else "another worker"

    ref = abi.put("global")
    abi.get(keep.remote([ref]))
    del ref
    gc.collect()
    assert "global" in abi.get([use.remote() for _ in range(4)])
    nothing_held(program)


def test_a_ref_that_is_pickled_by_hand_is_the_same_ref() -> None:
    ref = echo.remote("by hand")
    text = pickle.dumps([ref])
    assert abi.get(pickle.loads(text)[0]) == "by hand"


def test_several_results_are_held_one_by_one(program: Daemon) -> None:
    refs: Any = echo.options(num_returns=3).remote([bytes(MIB), "small", [abi.put("inside")]])
    first, second, third = refs
    del refs
    assert len(abi.get(first)) == MIB
    del first
    gc.collect()
    assert abi.get(second) == "small"
    assert abi.get(echo.remote(second)) == "small"
    inner = abi.get(third)[0]
    del second, third
    gc.collect()
    assert abi.get(inner) == "inside"
    del inner
    nothing_held(program)


def test_a_ref_of_another_program_is_refused_by_name(program: Daemon, tmp_path: Path) -> None:
    ref = abi.put("mine")
    path = tmp_path / "ref"
    path.write_bytes(pickle.dumps(ref))
    script = f"""
        import pickle, abi

        @abi.remote
        def echo(x):
            return x

        ref = pickle.load(open({str(path)!r}, "rb"))
        print(repr(ref))
        for use in (abi.get, lambda r: abi.wait([r]), echo.remote, lambda r: echo.remote([r]), abi.cancel):
            try:
                print("used:", use(ref))
            except (abi.errors.SessionLost, abi.errors.SerializationError) as error:
                print("refused" if ref.short in str(error) and "another program" in str(error) else error)
        print(abi.get(echo.remote("goes on")))
        """
    lines = output_of(program, script).splitlines()
    assert "another program" in lines[0]
    assert ref.short in lines[0]
    assert lines[1:] == ["refused"] * 5 + ["goes on"]
    assert abi.get(ref) == "mine"


# --- everything is let go ---------------------------------------------------------------------------------------------


def test_a_hundred_thousand_tasks_leave_nothing(program: Daemon) -> None:
    def run(count: int) -> None:
        for _ in range(count // 10_000):
            refs = [echo.remote(n) for n in range(10_000)]
            assert abi.get(refs) == list(range(10_000))

    run(20_000)
    nothing_held(program)
    rss, fds = memory_bytes(program.pid), descriptors_of(program.pid)
    run(100_000)
    nothing_held(program)
    assert memory_bytes(program.pid) - rss < 24 * MIB
    assert descriptors_of(program.pid) <= fds + 1


def test_two_hundred_large_objects_leave_nothing(program: Daemon) -> None:
    size = 200_000

    @abi.remote
    def make(n: int) -> bytes:
        return bytes([n]) * size

    def run(count: int) -> None:
        for start in range(0, count, 20):
            made = [make.remote(n) for n in range(start, start + 20)]
            put = [abi.put(bytes([n]) * size) for n in range(start, start + 20)]
            assert [value[-1] for value in abi.get(made)] == list(range(start, start + 20))
            assert [value[0] for value in abi.get([echo.remote(ref) for ref in put])] == list(range(start, start + 20))

    run(20)
    nothing_held(program)
    before = memory_bytes(program.pid), descriptors_of(program.pid)
    own = descriptors_of(os.getpid())
    run(200)
    nothing_held(program)
    assert memory_bytes(program.pid) - before[0] < 24 * MIB, "payloads never enter the daemon's own memory"
    assert descriptors_of(program.pid) <= before[1] + 1
    assert descriptors_of(os.getpid()) <= own + 1, "nor do descriptors stay here"


def test_what_nobody_refers_to_runs_all_the_same(tmp_path: Path, program: Daemon) -> None:
    @abi.remote
    def touch(name: str) -> bytes:
        (tmp_path / name).touch()
        return bytes(MIB)

    for n in range(20):
        touch.remote(f"at-{n}")
    eventually(lambda: len(list(tmp_path.glob("at-*"))) == 20, "all have run")
    nothing_held(program)
