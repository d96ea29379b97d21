"""The table of calls that users of Ray rely on, row by row, in a real worker."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon, eventually
from tests.system.work import add, await_file, die, echo, fail, sleep, stumble

pytestmark = pytest.mark.usefixtures("program")

untyped: Any = abi
"""For calls that no type checker lets pass."""


# --- @remote ----------------------------------------------------------------------------------------------------------


def test_the_decorator_is_bare_or_takes_keywords() -> None:
    @abi.remote
    def bare(x: int) -> int:
        """What it does."""
        return x

    @abi.remote()
    def empty(x: int) -> int:
        return x + 1

    @abi.remote(num_cpus=1, name="named")
    def keywords(x: int) -> int:
        return x + 2

    assert abi.get([bare.remote(1), empty.remote(1), keywords.remote(1)]) == [1, 2, 3]
    assert (bare.__name__, bare.__doc__) == ("bare", "What it does.")


def test_other_forms_of_the_decorator_say_what_is_right() -> None:
    with pytest.raises(TypeError, match="by keyword"):
        untyped.remote(2)
    with pytest.raises(TypeError, match=r"keyword|function or options"):
        untyped.remote(lambda: 1, num_cpus=2)
    with pytest.raises(TypeError, match="remote already"):
        untyped.remote(echo)
    with pytest.raises(errors.Refused, match="actors"):
        untyped.remote(type("Thing", (), {}))
    with pytest.raises(errors.Refused, match="stream"):

        @untyped.remote
        def generator() -> Iterator[int]:
            yield 1


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"num_cpu": 2}, ValueError, "'num_cpu'.*did you mean 'num_cpus'"),
        ({"max_retrys": 2}, ValueError, "'max_retrys'.*did you mean 'max_retries'"),
        ({"qqq": 2}, ValueError, "'qqq'.*num_cpus"),
        ({"num_cpus": "2"}, TypeError, "num_cpus.*number.*str"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": 0.00001}, ValueError, "0.0001"),
        ({"num_cpus": float("nan")}, ValueError, "num_cpus"),
        ({"num_cpus": 1e300}, ValueError, "num_cpus"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_gpus": "all"}, TypeError, "num_gpus"),
        ({"memory": "1G"}, TypeError, "memory.*bytes"),
        ({"memory": -1}, ValueError, "memory"),
        ({"resources": ["a"]}, TypeError, "resources"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": {"a": "b"}}, TypeError, "a"),
        ({"resources": {1: 1}}, TypeError, "resources"),
        ({"max_retries": 1.5}, TypeError, "max_retries"),
        ({"max_retries": -2}, ValueError, "max_retries"),
        ({"retry_exceptions": ValueError}, TypeError, "retry_exceptions"),
        ({"retry_exceptions": [1]}, TypeError, "retry_exceptions"),
        ({"num_returns": -1}, ValueError, "num_returns"),
        ({"num_returns": 1.5}, TypeError, "num_returns"),
        ({"num_returns": "many"}, TypeError, "num_returns"),
        ({"name": 3}, TypeError, "name"),
        ({"max_calls": "x"}, TypeError, "max_calls"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": "5"}, TypeError, "timeout"),
        ({"priority": "urgent"}, ValueError, "critical"),
        ({"priority": 3}, TypeError, "priority"),
        ({"on_full": "drop"}, ValueError, "block, raise"),
        ({"durable": True}, errors.Refused, "durable"),
        ({"scheduling_strategy": "SPREAD"}, errors.Refused, "scheduling_strategy"),
        ({"num_returns": "streaming"}, errors.Refused, "stream"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_written(options: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        untyped.remote(**options)
    with pytest.raises(kind, match=words):
        echo.options(**options)


def test_options_returns_a_copy() -> None:
    once = echo.options(name="first", max_retries=0)
    twice = once.options(name="second")
    assert (echo.settings, once.settings["name"], twice.settings["name"]) == ({}, "first", "second")
    assert twice.settings["max_retries"] == 0, "what is not named stays"
    assert abi.get([echo.remote(1), once.remote(2), twice.remote(3)]) == [1, 2, 3]

    @abi.remote
    def name() -> str:
        task = abi.current_task()
        assert task is not None
        return task.name

    assert abi.get([name.remote(), name.options(name="other").remote()])[1] == "other"


def test_calling_it_directly_says_to_use_remote() -> None:
    with pytest.raises(TypeError, match=r"echo\.remote\("):
        echo(1)


def test_wrong_arguments_are_refused_at_the_call() -> None:
    wrong: Any = add
    for arguments, keywords in [((), {}), ((1, 2, 3), {}), ((1,), {"d": 1}), ((1,), {"a": 2})]:
        with pytest.raises(TypeError, match="add"):
            abi.get(wrong.remote(*arguments, **keywords))
    assert abi.get([add.remote(1), add.remote(1, 2), add.remote(1, c=3), add.remote(a=1, b=2, c=3)]) == [
        111,
        103,
        14,
        6,
    ]


# --- get --------------------------------------------------------------------------------------------------------------


def test_get_keeps_the_order() -> None:
    slow, fast = sleep.remote(0.05, "slow"), echo.remote("fast")
    assert abi.get([slow, fast, slow]) == ["slow", "fast", "slow"]
    assert abi.get((fast, slow)) == ["fast", "slow"]
    assert abi.get([]) == []


@pytest.mark.parametrize("wrong", [1, None, "ref", {"a": 1}, [1], [None], iter([]), {1}])
def test_get_takes_refs_and_nothing_else(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="get takes"):
        abi.get(wrong)


def test_get_takes_refs_and_nothing_else_among_refs() -> None:
    mixed: Any = [echo.remote(1), 1]
    with pytest.raises((TypeError, ValueError), match="get takes"):
        abi.get(mixed)


def test_get_raises_at_the_first_error_without_waiting_for_the_rest(tmp_path: Path) -> None:
    waits = await_file.remote(str(tmp_path / "go"))
    with pytest.raises(ValueError, match="early"):
        abi.get([waits, fail.remote("early")])
    (tmp_path / "go").touch()
    abi.get(waits)


def test_get_with_timeout_0_gives_what_is_there(tmp_path: Path) -> None:
    waits, done = await_file.remote(str(tmp_path / "go"), 5), echo.remote(7)
    with pytest.raises(abi.errors.GetTimeoutError) as caught:
        abi.get(waits, timeout=0)
    assert isinstance(caught.value, TimeoutError)
    assert eventually(lambda: abi.wait([done], timeout=0)[0], "the short one")
    assert abi.get(done, timeout=0) == 7
    began = time.monotonic()
    with pytest.raises(abi.errors.GetTimeoutError, match="1 of 2"):
        abi.get([done, waits], timeout=0.05)
    assert time.monotonic() - began > 0.04
    (tmp_path / "go").touch()
    assert abi.get(waits) == 5, "a timeout does not cancel"


# --- wait -------------------------------------------------------------------------------------------------------------


def test_wait_keeps_the_order_of_its_input(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    late, *early = refs = [await_file.remote(str(gate)), *(echo.remote(n) for n in range(4))]
    ready, rest = abi.wait(refs, num_returns=4)
    assert (ready, rest) == (early, [late])
    assert abi.wait(list(reversed(refs)), num_returns=2) == (early[:1:-1], [early[1], early[0], late])
    assert abi.wait([late], timeout=0) == ([], [late])
    assert abi.wait([late], timeout=0.02) == ([], [late])
    assert abi.wait(refs, num_returns=5, timeout=0.02) == (early, [late])
    gate.touch()
    assert abi.wait(refs, num_returns=5) == (refs, [])
    assert abi.wait([]) == ([], [])


def test_a_failure_is_ready() -> None:
    failed = fail.remote()
    assert abi.wait([failed]) == ([failed], [])


def test_wait_says_what_it_takes() -> None:
    ref, other = echo.remote(1), echo.remote(2)
    with pytest.raises(TypeError, match=r"wait\(\[ref\]\)"):
        untyped.wait(ref)
    with pytest.raises(TypeError):
        untyped.wait([ref, 1])
    with pytest.raises(TypeError):
        untyped.wait(5)
    for num_returns in (0, -1, 3):
        with pytest.raises(ValueError, match="num_returns"):
            abi.wait([ref, other], num_returns=num_returns)
    with pytest.raises(ValueError, match="once"):
        abi.wait([ref, ref])
    with pytest.raises(ValueError, match="timeout"):
        abi.wait([ref], timeout=-1)
    with pytest.raises(TypeError):
        untyped.wait([ref], num_returns=1.0)


# --- put, cancel ------------------------------------------------------------------------------------------------------


def test_put_pickles_at_the_call() -> None:
    value = [1, 2]
    ref = abi.put(value)
    value.append(3)
    assert (abi.get(ref), abi.get(echo.remote(ref))) == ([1, 2], [1, 2])
    assert abi.get(abi.put(None)) is None
    with pytest.raises(TypeError, match="reference already"):
        abi.put(ref)


def test_cancel_says_what_it_takes() -> None:
    for wrong in (1, [echo.remote(1)], None):
        with pytest.raises(TypeError, match="cancel takes a Ref"):
            untyped.cancel(wrong)


def test_cancel_ends_what_waits_and_leaves_what_has_ended(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    waits = await_file.remote(str(gate), "value")
    marks = tmp_path / "ran"

    @abi.remote
    def after(_value: Any) -> None:
        marks.touch()

    never = after.remote(waits)
    abi.cancel(never)
    abi.cancel(never)
    with pytest.raises(errors.TaskCancelledError):
        abi.get(never)
    gate.touch()
    assert abi.get(waits) == "value"
    abi.cancel(waits)
    abi.cancel(waits, force=True)
    assert abi.get(waits) == "value"
    assert not marks.exists()


# --- refs -------------------------------------------------------------------------------------------------------------


def test_a_ref_at_top_level_is_its_value_and_a_nested_one_stays_a_ref(tmp_path: Path) -> None:
    @abi.remote
    def kinds(top: Any, nested: Any, *, word: Any, inside: Any) -> list[str]:
        return [type(value).__name__ for value in (top, nested[0], nested[1]["deep"], word, inside["x"])]

    ref = await_file.remote(str(tmp_path / "go"), 1)
    shown = kinds.remote(ref, [ref, {"deep": ref}], word=ref, inside={"x": ref})
    with pytest.raises(errors.GetTimeoutError):
        abi.get(shown, timeout=0.05)
    (tmp_path / "go").touch()
    assert abi.get(shown) == ["int", "Ref", "Ref", "int", "Ref"]


def test_keywords_and_positions_of_refs_are_kept() -> None:
    refs = {name: echo.remote(name) for name in "abcd"}

    @abi.remote
    def told(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs

    shown = told.remote(1, refs["a"], 2, refs["b"], x=refs["c"], y=3, z=refs["d"])
    assert abi.get(shown) == ((1, "a", 2, "b"), {"x": "c", "y": 3, "z": "d"})


def test_a_ref_awaits_compares_hashes_copies_and_pickles() -> None:
    async def main() -> int:
        return await echo.remote(5)

    assert asyncio.run(main()) == 5
    ref, other = echo.remote(1), echo.remote(1)
    assert ref == ref
    assert ref != other
    assert ref != 1
    assert len({ref, copy.copy(ref), copy.deepcopy(ref)}) == 1
    again = pickle.loads(pickle.dumps(ref))
    assert again == ref
    assert hash(again) == hash(ref)
    assert abi.get(again) == 1
    future = other.future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(10) == 1
    with pytest.raises(ValueError, match="told"):
        fail.remote("told").future().result(10)


def test_a_ref_tells_its_state_in_words(tmp_path: Path) -> None:
    ref = await_file.remote(str(tmp_path / "go"))
    assert "under way" in repr(ref)
    (tmp_path / "go").touch()
    abi.get(ref)
    assert "finished" in repr(ref)
    failed = fail.remote()
    abi.wait([failed])
    assert "error" in repr(failed)


# --- num_returns ------------------------------------------------------------------------------------------------------


def test_num_returns() -> None:
    @abi.remote(num_returns=3)
    def three(n: int) -> list[int]:
        return [n, n + 1, n + 2]

    @abi.remote(num_returns=0)
    def nothing() -> int:
        return 5

    refs: Any = three.remote(1)
    assert isinstance(refs, list)
    assert abi.get(refs) == [1, 2, 3]
    assert abi.get(refs[1]) == 2
    assert len(set(refs)) == 3
    assert abi.get(add.remote(refs[2], refs[0], c=refs[1])) == 6
    assert nothing.remote() is None
    assert abi.get(three.options(num_returns=1).remote(1)) == [1, 2, 3]


@pytest.mark.parametrize("returned", [[1, 2], [1, 2, 3, 4], 5, None])
def test_a_wrong_number_of_results_is_an_error(returned: Any) -> None:
    refs: Any = echo.options(num_returns=3).remote(returned)
    for ref in refs:
        with pytest.raises((ValueError, TypeError), match="return"):
            abi.get(ref)


# --- retries ----------------------------------------------------------------------------------------------------------


def starts(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_max_retries_counts_deaths_of_the_worker(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("default", "none", "one", "ever")]
    for folder in folders:
        folder.mkdir()
    default, none, one, ever = map(str, folders)
    refs: list[abi.Ref[int]] = [
        die.remote(default),
        die.options(max_retries=0).remote(none),
        die.options(max_retries=1).remote(one),
        die.options(max_retries=-1).remote(ever, 6),
    ]
    kinds = (errors.WorkerCrashedError, errors.TaskLostError, errors.WorkerCrashedError)
    for ref, kind in zip(refs, kinds, strict=False):
        with pytest.raises(kind):
            abi.get(ref)
    assert abi.get(refs[3]) == 6
    assert [starts(folder) for folder in folders] == [4, 1, 2, 6]


def test_retry_exceptions_adds_the_users_own(tmp_path: Path) -> None:
    def run(name: str, kind: type[Exception], survive_at: int, **options: Any) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        return stumble.options(**options).remote(str(folder), kind, survive_at), folder

    cases = [
        (run("not", ValueError, 2), None, 1),
        (run("all", ValueError, 3, retry_exceptions=True), 3, 3),
        (run("typed", ValueError, 3, retry_exceptions=[OSError, ValueError]), 3, 3),
        (run("sub", FileNotFoundError, 2, retry_exceptions=[OSError]), 2, 2),
        (run("other", ValueError, 3, retry_exceptions=[OSError]), None, 1),
        (run("limit", ValueError, 9, retry_exceptions=True, max_retries=1), None, 2),
        (run("zero", ValueError, 9, retry_exceptions=True, max_retries=0), None, 1),
    ]
    for (ref, folder), value, started in cases:
        if value is None:
            with pytest.raises(Exception, match="stumbled"):
                abi.get(ref)
        else:
            assert abi.get(ref) == value
        assert starts(folder) == started, folder.name


# --- other options ----------------------------------------------------------------------------------------------------


def test_what_no_host_has_is_refused_at_once() -> None:
    for options, words in [
        ({"num_cpus": 64}, "64 CPUs.*2"),
        ({"resources": {"licence": 1}}, "licence"),
        ({"num_gpus": 1}, "gpu"),
        ({"memory": 1 << 50}, "memory"),
    ]:
        with pytest.raises(errors.Refused, match=f"(?i){words}"):
            abi.get(echo.options(**options).remote(1), timeout=10)  # type: ignore[arg-type]


def test_a_task_in_get_gives_its_processor_back() -> None:
    @abi.remote
    def deep(levels: int) -> int:
        return 0 if levels == 0 else 1 + abi.get(deep.remote(levels - 1))

    assert abi.get(deep.remote(8)) == 8, "on two processors"


def test_a_task_in_wait_gives_its_processor_back() -> None:
    @abi.remote
    def parent() -> int:
        refs = [echo.remote(n) for n in range(4)]
        ready, _rest = abi.wait(refs, num_returns=4)
        return sum(abi.get(ready))

    assert abi.get([parent.remote() for _ in range(4)]) == [6] * 4


def test_omp_num_threads_follows_the_processors() -> None:
    @abi.remote
    def threads() -> str | None:
        return os.environ.get("OMP_NUM_THREADS")

    expected = os.environ.get("OMP_NUM_THREADS")
    assert abi.get(threads.options(num_cpus=1).remote()) == (expected or "1")


def test_fractions_of_a_processor_add_up(tmp_path: Path) -> None:
    gate = str(tmp_path / "go")

    @abi.remote(num_cpus=0.25)
    def meet(name: str) -> None:
        (tmp_path / name).touch()
        while not os.path.exists(gate):
            time.sleep(0.002)

    refs = [meet.remote(f"at-{n}") for n in range(8)]
    eventually(lambda: len(list(tmp_path.glob("at-*"))) == 8, "eight quarters run on two processors at once")
    Path(gate).touch()
    abi.get(refs)


def test_higher_priority_goes_first(program: Daemon, tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.touch()
    gate = str(tmp_path / "go")

    @abi.remote(num_cpus=2)
    def write(word: str) -> None:
        with open(order, "a") as file:
            file.write(f"{word} ")

    holds = await_file.options(num_cpus=2).remote(gate)
    waiting = [write.options(priority=word).remote(word) for word in ("low", "normal", "high", "critical")]  # type: ignore[arg-type]
    eventually(lambda: program.ask("status")["tasks"]["queued"] == 4, "all wait")
    Path(gate).touch()
    abi.get([holds, *waiting])
    assert order.read_text().split() == ["critical", "high", "normal", "low"]


def test_timeout_ends_a_run() -> None:
    began = time.monotonic()
    with pytest.raises(errors.TaskTimedOut) as caught:
        abi.get(sleep.options(timeout=0.1).remote(30))
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 25
    assert "0.1 s" in str(caught.value)


# --- init, current_task, gather ---------------------------------------------------------------------------------------


def test_a_second_init_raises_unless_ignored(program: Daemon) -> None:
    ref = echo.remote(1)
    with pytest.raises(RuntimeError, match="connected already"):
        abi.init(address=str(program.runtime_dir))
    abi.init(address=str(program.runtime_dir), ignore_reinit_error=True)
    assert abi.is_initialized()
    assert abi.get(ref) == 1, "the session goes on"


def test_init_and_shutdown_in_a_task_change_nothing() -> None:
    @abi.remote
    def starts_over() -> tuple[bool, bool, int]:
        abi.init()
        before = abi.is_initialized()
        abi.shutdown()
        return before, abi.is_initialized(), abi.get(echo.remote(5))

    assert abi.get(starts_over.remote()) == (True, True, 5)


def test_current_task_tells_id_name_attempt_and_host() -> None:
    @abi.remote
    def who() -> Any:
        return abi.current_task()

    ref = who.remote()
    told = abi.get(ref)
    assert (told.id, told.short, told.attempt, told.namespace) == (ref.id, ref.short, 1, "default")
    assert "who" in told.name
    assert told.host == os.uname().nodename
    assert abi.current_task() is None, "the program itself is no task"


def test_gather_is_several_refs_as_one() -> None:
    gathered = abi.gather(echo.remote(1), echo.remote(2))
    assert gathered.get() == [1, 2]

    async def main() -> list[int]:
        return await abi.gather(echo.remote(3), echo.remote(4))

    assert asyncio.run(main()) == [3, 4]
    with pytest.raises(TypeError, match="gather"):
        untyped.gather(1)
    with pytest.raises(ValueError, match="told"):
        abi.gather(sleep.remote(0.01), fail.remote("told")).get()


def test_coroutine_functions_are_remote_too() -> None:
    @abi.remote
    async def double(x: int) -> int:
        await asyncio.sleep(0.001)
        return 2 * x

    @abi.remote
    async def chained(x: int) -> int:
        return await double.remote(x) + sum(await abi.gather(*(double.remote(n) for n in range(3))))

    assert abi.get([double.remote(4), chained.remote(4)]) == [8, 14]


def test_a_task_learns_nothing_of_the_threads_that_wait_for_it() -> None:
    seen: list[int] = []
    ref = sleep.remote(0.02, 9)
    threads = [threading.Thread(target=lambda: seen.append(abi.get(ref))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [9] * 8
