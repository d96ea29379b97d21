"""`abi.map`: chunks that fit the work, lazy on its input, in order, and as strict as the built-in one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from abi.session import current
from tests.system.harness import WAIT_S, Daemon, eventually
from tests.system.scripts import output_of, status
from tests.system.work import Keyword, add, await_file, echo, fail, sleep

pytestmark = pytest.mark.usefixtures("program")

untyped: Any = abi


@abi.remote
def fussy(x: int) -> int:
    if x == 57:
        raise ValueError(f"not {x}")
    return 2 * x


@abi.remote
def where(x: int) -> tuple[int, int]:
    import os

    return x, os.getpid()


def plain(x: int) -> int:
    return x + 1


def tasks_ended(daemon: Daemon) -> int:
    return int(status(daemon)["tasks"]["finished"])


def test_results_come_in_order() -> None:
    assert list(abi.map(echo, range(5000))) == list(range(5000))
    assert list(abi.map(plain, [3, 1, 2])) == [4, 2, 3]
    assert list(abi.map(int, ["3", "1"])) == [3, 1]
    assert list(untyped.map(lambda x: -x, (1, 2))) == [-1, -2]
    assert list(abi.map(echo, [])) == []
    assert list(abi.map(sleep, [0.05, 0.0, 0.02, 0.01], "abcd")) == list("abcd")


def test_several_iterables_end_with_the_shortest() -> None:
    assert list(abi.map(add, [1, 2, 3], [10, 20])) == [111, 122]
    assert list(untyped.map(lambda a, b, c, d: a + b + c + d, "ab", "cd", "ef", "gh")) == ["aceg", "bdfh"]
    assert list(abi.map(echo, [(1, 2), (3, 4)])) == [(1, 2), (3, 4)], "a tuple is one item"


def test_what_it_does_not_take_is_said_at_once() -> None:
    with pytest.raises(TypeError, match="iterable"):
        untyped.map(echo)
    with pytest.raises(TypeError):
        untyped.map(echo, 5)
    with pytest.raises(TypeError):
        untyped.map(5, [1])
    with pytest.raises(ValueError, match="chunk"):
        abi.map(echo, [1], chunk=0)


def test_many_short_calls_make_few_tasks(program: Daemon) -> None:
    before = tasks_ended(program)
    assert sum(abi.map(echo, range(20_000))) == sum(range(20_000))
    assert tasks_ended(program) - before < 200


def test_long_calls_go_one_by_one(program: Daemon) -> None:
    before = tasks_ended(program)
    assert list(abi.map(sleep, [0.02] * 12)) == [None] * 12
    assert tasks_ended(program) - before == 12


def test_a_chunk_may_be_given(program: Daemon) -> None:
    before = tasks_ended(program)
    assert list(abi.map(echo, range(100), chunk=10)) == list(range(100))
    assert tasks_ended(program) - before == 10
    assert list(abi.map(echo, range(101), chunk=1000)) == list(range(101))


def test_it_is_lazy_on_an_endless_iterator() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for taken in itertools.count(1):  # noqa: UP028  it is counted as well
            yield taken

    results = abi.map(sleep, itertools.repeat(0.001), endless())
    assert taken == 0, "nothing is taken before the first result is asked for"
    assert list(itertools.islice(results, 50)) == list(range(1, 51))
    assert taken < 1000
    now = taken
    time.sleep(0.05)  # were it to go on by itself, it would
    assert taken == now
    assert next(results) == 51


def test_leaving_it_cancels_what_is_under_way(program: Daemon, tmp_path: Path) -> None:
    results = abi.map(await_file, itertools.repeat(str(tmp_path / "never")), itertools.count())
    thread = threading.Thread(target=lambda: next(results, None))
    thread.start()
    eventually(lambda: status(program)["tasks"]["running"] >= 2, "its first calls run")
    (tmp_path / "never").touch()
    thread.join(WAIT_S)
    (tmp_path / "never").unlink()
    results.close()  # type: ignore[attr-defined]
    eventually(lambda: status(program)["tasks"]["running"] == 0, "nothing of it runs on")
    assert status(program)["tasks"]["queued"] == 0


def test_a_failure_comes_at_its_place() -> None:
    results = abi.map(fussy, range(1000))
    got = list(itertools.islice(results, 57))
    assert got == [2 * n for n in range(57)]
    with pytest.raises(ValueError, match="not 57") as caught:
        next(results)
    assert isinstance(caught.value, errors.TaskError)
    assert "in fussy" in caught.value.remote_traceback
    assert next(results, "over") == "over"
    with pytest.raises(ValueError, match="not 57"):
        list(abi.map(fussy, range(1000), chunk=1000))


def test_failures_that_do_not_travel_and_results_that_do_not() -> None:
    def raises(_x: int) -> None:
        raise Keyword(code=3)

    def returns(_x: int) -> Any:
        return threading.Lock()

    with pytest.raises(errors.TaskError, match="code 3"):
        list(abi.map(raises, [1]))
    with pytest.raises(errors.SerializationError, match="lock"):
        list(abi.map(returns, [1]))
    with pytest.raises(errors.SerializationError, match="lock"):
        list(untyped.map(echo, [threading.Lock()]))
    assert list(abi.map(echo, [1])) == [1]


def test_an_iterator_that_raises_does_so_here() -> None:
    def broken() -> Iterator[int]:
        yield from range(10)
        raise LookupError("in the input")

    results = abi.map(echo, broken(), chunk=4)
    with pytest.raises(LookupError, match="in the input"):
        list(results)


def test_timeout_is_for_the_whole_of_it() -> None:
    with pytest.raises(errors.GetTimeoutError, match=r"0\.3"):
        list(abi.map(sleep, [0.05] * 1000, timeout=0.3))
    assert list(abi.map(echo, range(10), timeout=20)) == list(range(10))


@pytest.mark.parametrize("chunk", [None, 1, 100])
def test_what_is_ready_comes_before_more_of_a_slow_input_is_read(program: Daemon, chunk: int | None) -> None:
    eventually(lambda: status(program)["tasks"]["running"] == 0, "what was before has ended")
    before = tasks_ended(program)
    got: list[int] = []

    def is_known(wanted: int) -> bool:
        return tasks_ended(program) - before >= wanted and not current().pending

    def slow() -> Iterator[int]:
        for n in range(6):
            # What was read before the item before this one has been yielded, although no chunk is full.
            assert len(got) >= n - 1, "a finished result is held back"
            time.sleep(0.02)
            eventually(lambda wanted=n: is_known(wanted), "what was read is submitted, and its result has come")
            yield n

    for value in abi.map(echo, slow(), chunk=chunk):
        got.append(value)  # noqa: PERF402  the input looks at it meanwhile
    assert got == list(range(6))


def test_timeout_is_looked_at_while_the_input_is_read() -> None:
    read: list[int] = []

    def slow() -> Iterator[int]:
        for n in range(300):
            read.append(n)
            time.sleep(0.02)
            yield n

    for chunk in (None, 1, 1000):
        read.clear()
        got: list[int] = []
        with pytest.raises(errors.GetTimeoutError, match=r"0\.5"):
            for value in abi.map(echo, slow(), timeout=0.5, chunk=chunk):
                got.append(value)  # noqa: PERF402  what there is before the failure counts
        assert len(read) < 300, "the input was read to its end"
        assert got == list(range(len(got)))


def test_timeout_is_not_for_what_comes_after_the_last_result(monkeypatch: pytest.MonkeyPatch) -> None:
    late_s = 0
    monkeypatch.setattr("abi.mapping.monotonic", lambda: time.monotonic() + late_s)
    results = abi.map(echo, iter([1]), timeout=1000)
    assert next(results) == 1
    late_s = 2000
    assert next(results, "over") == "over"


def test_nothing_is_read_after_the_end_of_the_input() -> None:
    first = iter(range(100))
    assert list(abi.map(add, first, [1, 2])) == [101, 103]
    assert next(first) == 3, "like the built-in zip, it takes one too many, and no more"


def test_an_iterator_that_is_fast_makes_few_tasks(program: Daemon) -> None:
    before = tasks_ended(program)
    assert sum(abi.map(echo, iter(range(20_000)))) == sum(range(20_000))
    assert tasks_ended(program) - before < 200


def test_options_of_the_function_are_kept() -> None:
    @abi.remote(name="named", num_cpus=0.5)
    def name(_x: int) -> str:
        task = abi.current_task()
        assert task is not None
        return task.name

    assert set(abi.map(name, range(5))) == {"named"}


def test_coroutine_functions_and_refs_among_the_items() -> None:
    @abi.remote
    async def double(x: int) -> int:
        import asyncio

        await asyncio.sleep(0)
        return 2 * x

    assert list(abi.map(double, range(50))) == [2 * n for n in range(50)]
    refs = [echo.remote(n) for n in range(5)]
    assert list(untyped.map(double, refs)) == [0, 2, 4, 6, 8], "as with remote(): a ref stands for its value"
    assert list(untyped.map(add, refs, [1, refs[0], 2, 3, 4])) == [101, 101, 104, 106, 108]
    results = untyped.map(double, [echo.remote(1), fail.remote("a dependency"), 3], chunk=3)
    assert next(results) == 2
    with pytest.raises(ValueError, match="a dependency"):
        next(results)


def test_both_processors_work() -> None:
    def busy(x: int) -> int:
        import os

        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return os.getpid()

    assert len(set(abi.map(busy, range(200)))) == 2


def test_inside_a_task() -> None:
    @abi.remote
    def outer(n: int) -> int:
        return sum(abi.map(plain, range(n)))

    assert abi.get([outer.remote(100) for _ in range(3)]) == [5050] * 3


def test_several_at_once_in_threads() -> None:
    results: dict[int, int] = {}

    def work(n: int) -> None:
        results[n] = sum(abi.map(echo, range(n)))

    threads = [threading.Thread(target=work, args=(n * 1000,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n * 1000: sum(range(n * 1000)) for n in range(1, 5)}


def test_large_items_and_results() -> None:
    values = [bytes([n]) * 200_000 for n in range(30)]
    assert list(abi.map(echo, values)) == values
    assert [len(value) for value in abi.map(bytes, [50_000] * 500)] == [50_000] * 500


def test_a_hundred_thousand(program: Daemon) -> None:
    script = """
        import abi, time

        def square(x):
            return x * x

        print(sum(abi.map(square, range(100_000))))
        """
    assert output_of(program, script) == f"{sum(n * n for n in range(100_000))}\n"
