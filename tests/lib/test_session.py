"""A program's calls against a scripted daemon: what is said to it, in which order, and what comes of its answers."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

import abi
from abi import errors
from abi.failure import failure_of
from abi.pickling import dumps_value
from abi.wire.codec import encode_failure
from abi.wire.schema import End, EndKind, Kind, Output, Starting, Task
from tests.lib.conftest import PREFIX, Connected
from tests.lib.fake_daemon import FakeDaemon


@abi.remote
def nothing() -> None: ...


@abi.remote
def double(number: int) -> int:
    return number * 2


@abi.remote
def add(left: int, right: int = 1, *, more: int = 0) -> int:
    return left + right + more


@abi.remote
def count(*numbers: int) -> int:
    return len(numbers)


def never(_daemon: FakeDaemon, _task: Task) -> list[End]:
    return []


def fails(_daemon: FakeDaemon, task: Task) -> list[End]:
    return [End(task.seq, EndKind.ERROR, encode_failure(failure_of(ValueError("boom"), "here", "f")))]


def test_calls_and_results(connected: Connected) -> None:
    refs = [double.remote(number) for number in range(1000)]
    assert abi.get(refs) == [2 * number for number in range(1000)]
    assert abi.get(refs[3]) == abi.get(refs[3]) == 6
    assert abi.get(nothing.remote()) is None
    assert abi.get(add.remote(1, more=5)) == 7
    # A function and its options are said once, before their first use.
    assert len(connected.daemon.functions) == 3
    kinds = [kind for kind, _item in connected.daemon.heard]
    assert kinds.index(Kind.FUNCTION) < kinds.index(Kind.SUBMIT)
    assert {options.name for options in connected.daemon.options.values()} == {"double", "nothing", "add"}


def test_releases_follow_the_last_reference(connected: Connected) -> None:
    ref = double.remote(1)
    alias, seq = copy.deepcopy(ref), ref.seq
    assert abi.get(ref) == 2
    del ref
    assert alias == alias
    del alias
    gc.collect()
    connected.daemon.until(lambda: connected.daemon.of(Kind.RELEASE) == [seq])


def test_what_no_message_holds_takes_nothing_with_it(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    held = nothing.remote()
    refs = [double.remote(number) for number in range(20)]
    known = abi.put(1)
    count._bind()
    before = list(connected.session.pending), dict(connected.session.functions), dict(connected.session.options)
    with pytest.raises(errors.SerializationError, match="references are more than"):
        count.remote(*[known] * 500_001)
    with pytest.raises(errors.SerializationError, match="the options of 'xx"):
        nothing.options(name="x" * (1 << 24)).remote()
    with pytest.raises(errors.SerializationError, match="no Unicode"):
        nothing.options(name="caf\udce9").remote()
    strange = abi.remote(lambda: None)
    strange.__abi_function__.__qualname__ = "\udce9"
    with pytest.raises(errors.SerializationError, match="no Unicode"):
        strange.remote()
    abi.cancel(held, force="yes")  # type: ignore[arg-type]
    connected.daemon.until(lambda: len(connected.daemon.of(Kind.SUBMIT)) == 21)
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.CANCEL)))
    assert connected.daemon.of(Kind.CANCEL)[0].force is True
    after = list(connected.session.pending), dict(connected.session.functions), dict(connected.session.options)
    assert after == before
    connected.daemon.say(Kind.END, *[End(ref.seq, EndKind.OK) for ref in refs])
    assert abi.get(refs, timeout=10) == [None] * 20


def test_nobody_refers_to_it_and_it_goes_on(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    nothing.remote()
    task = next(iter(connected.session.pending.values())).state
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.SUBMIT)))
    assert not connected.daemon.of(Kind.RELEASE)
    connected.daemon.say(Kind.END, End(task.seq, EndKind.OK))
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.RELEASE)))


def test_dependencies_and_several_results(connect: Callable[..., Connected]) -> None:
    def answer(daemon: FakeDaemon, task: Task) -> list[End]:
        from abi.wire.schema import Part

        if daemon.options[task.options].returns == 2:
            return [End(task.seq, EndKind.OK, parts=[Part(dumps_value(value)[0]) for value in ("a", "b")])]
        if task.dependencies is None:
            return []
        return [End(task.seq, EndKind.OK, dumps_value([(d.position, d.seq, d.index) for d in task.dependencies])[0])]

    connect(answer)
    first, second = cast(Any, nothing.options(num_returns=2).remote())
    assert abi.get([second, first]) == ["b", "a"]
    assert first != second
    told: list[Any] = [abi.get(double.remote(second)), abi.get(add.remote(1, more=first))]
    assert told == [[(0, second.seq, 1)], [(1, first.seq, 0)]]
    assert nothing.options(num_returns=0).remote() is None


def test_a_failure_comes_at_once(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    slow, quick = nothing.remote(), nothing.remote()
    connected.daemon.say(Kind.END, *fails(connected.daemon, Task(quick.seq, 1, 1)))
    with pytest.raises(ValueError, match="boom") as caught:
        abi.get([slow, quick])
    assert isinstance(caught.value, errors.TaskError)
    assert len([entry for entry in caught.traceback if "abi_runtime" in str(entry.path)]) == 1


def test_timeouts(connect: Callable[..., Connected]) -> None:
    connect(never)
    ref = nothing.remote()
    for timeout in (0, 0.01):
        with pytest.raises(errors.GetTimeoutError) as caught:
            abi.get(ref, timeout=timeout)
        assert isinstance(caught.value, TimeoutError)


def test_wait(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    refs = [nothing.remote() for _ in range(4)]
    connected.daemon.say(Kind.END, End(refs[2].seq, 0), End(refs[1].seq, EndKind.CANCELLED))
    assert abi.wait(refs, num_returns=2) == ([refs[1], refs[2]], [refs[0], refs[3]])
    assert abi.wait(refs, num_returns=1) == ([refs[1]], [refs[0], refs[2], refs[3]])
    assert abi.wait(refs, num_returns=3, timeout=0.01) == ([refs[1], refs[2]], [refs[0], refs[3]])
    assert abi.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ref: abi.get(3), TypeError),  # type: ignore[call-overload]
        (lambda ref: abi.get([ref, 3]), TypeError),  # type: ignore[list-item]
        (abi.wait, TypeError),
        (lambda ref: abi.wait([ref, ref]), ValueError),
        (lambda ref: abi.wait([ref], num_returns=0), ValueError),
        (lambda ref: abi.wait([ref], num_returns=2), ValueError),
        (abi.put, TypeError),
        (lambda ref: abi.cancel("x"), TypeError),  # type: ignore[arg-type]
        (lambda ref: double(3), TypeError),  # type: ignore[operator]
        (lambda ref: double.remote(), TypeError),  # type: ignore[call-overload]
        (lambda ref: double.remote(1, 2), TypeError),  # type: ignore[call-overload]
    ],
)
def test_wrong_calls(connected: Connected, call: Callable[[Any], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        call(double.remote(1))


def test_put_is_said_before_its_use(connected: Connected) -> None:
    ref = abi.put({"a": [1, 2]})
    assert abi.get(ref) == {"a": [1, 2]}
    large = abi.put(b"x" * 300_000)
    assert abi.get(large) == b"x" * 300_000
    connected.daemon.until(lambda: [item.seq for item in connected.daemon.of(Kind.PUT)] == [ref.seq, large.seq])
    assert len(connected.daemon.fds) == 1


def test_cancel(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    ref = nothing.remote()
    abi.cancel(ref, force=True)
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.CANCEL)))
    connected.daemon.say(Kind.END, End(ref.seq, EndKind.CANCELLED))
    with pytest.raises(errors.TaskCancelledError):
        abi.get(ref)
    abi.cancel(ref)
    assert len(connected.daemon.of(Kind.CANCEL)) == 1


def test_a_full_queue_blocks_or_raises(connect: Callable[..., Connected]) -> None:
    connected = connect(never, tasks_max=2)
    refs = [nothing.remote() for _ in range(2)]
    with pytest.raises(errors.QueueFullError) as caught:
        nothing.options(on_full="raise").remote()
    assert caught.value.retry_after_ms > 0
    third: list[Any] = []
    thread = threading.Thread(target=lambda: third.append(nothing.remote()))
    thread.start()
    connected.daemon.say(Kind.END, End(refs[0].seq, 0))
    thread.join(10)
    assert len(third) == 1


def test_output_comes_before_the_end(connect: Callable[..., Connected], capsys: pytest.CaptureFixture[str]) -> None:
    connected = connect(never)
    ref = nothing.remote()
    connected.daemon.say(Kind.OUTPUT, Output(ref.seq, "f", 1, b"one\ntwo\r\n"), Output(ref.seq, "f", 2, b"\xff\n"))
    connected.daemon.say(Kind.END, End(ref.seq, 0))
    abi.get(ref)
    out, err = capsys.readouterr()
    assert out == f"(f {ref.short}) one\n(f {ref.short}) two\r\n"
    assert err == f"(f {ref.short}) \N{REPLACEMENT CHARACTER}\n"


def test_references_travel(connected: Connected) -> None:
    ref = double.remote(4)
    abi.get(ref)
    again = pickle.loads(pickle.dumps(ref))
    assert again == ref
    assert hash(again) == hash(ref)
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.BORROW)))
    foreign = pickle.loads(pickle.dumps(ref).replace(PREFIX, b"node-xyz"))
    assert foreign != ref
    assert "another program" in repr(foreign)
    with pytest.raises(errors.SessionLost):
        abi.get(foreign)
    with pytest.raises(errors.SessionLost):
        double.remote(foreign)


def test_a_borrowed_end_is_asked_for(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    ref = connected.session.borrow(1 << 40 | 5)
    assert ref is connected.session.borrow(1 << 40 | 5)
    with pytest.raises(errors.GetTimeoutError):
        abi.get(ref, timeout=0)
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.WANT)))
    connected.daemon.say(Kind.END, End(ref.seq, 0, dumps_value("there")[0]))
    assert abi.get(ref) == "there"


def test_event_loops_and_futures(connected: Connected) -> None:
    async def main() -> tuple[int, list[int]]:
        return await double.remote(2), await abi.gather(*(double.remote(number) for number in range(100)))

    assert asyncio.run(main()) == (4, [2 * number for number in range(100)])
    assert double.remote(5).future().result(10) == 10
    assert abi.gather(double.remote(1), double.remote(2)).get() == [2, 4]


def test_a_failure_in_an_event_loop(connect: Callable[..., Connected]) -> None:
    connect(fails)

    async def main() -> None:
        await abi.gather(nothing.remote(), nothing.remote())

    with pytest.raises(ValueError, match="boom"):
        asyncio.run(main())
    assert isinstance(nothing.remote().future().exception(10), errors.TaskError)


def test_threads(connected: Connected) -> None:
    results: list[int] = []

    def work(start: int) -> None:
        results.extend(abi.get(double.remote(number)) for number in range(start, start + 50))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [2 * number for number in range(400)]


def test_a_fork_leaves_the_parent_alone(connected: Connected) -> None:
    ref = double.remote(1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ended = not abi.is_initialized()
            try:
                abi.get(ref)
            except errors.SessionLost:
                code = 0 if ended else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert abi.get(ref) == 2
    assert abi.get(double.remote(3)) == 6


def test_closing_ends_what_waits(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    ref = nothing.remote()
    connected.session.close()
    connected.daemon.until(lambda: bool(connected.daemon.of(Kind.BYE)))
    with pytest.raises(errors.SessionLost):
        connected.session.value_of(ref, ref.end)  # type: ignore[arg-type]


def test_map(connected: Connected) -> None:
    taken: list[int] = []

    def numbers() -> Any:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = abi.map(double, numbers())
    assert not taken, "nothing starts before the first result is asked for"
    assert next(results) == 0
    assert len(taken) < 10_000
    assert list(results) == [2 * number for number in range(1, 10_000)]
    assert list(abi.map(lambda left, right: left + right, [1, 2], [3, 4, 5], chunk=1)) == [4, 6]
    with pytest.raises(ValueError, match="chunk"):
        abi.map(double, [1], chunk=0)


def test_map_raises_at_its_item_s_place(connected: Connected) -> None:
    def inverse(number: int) -> float:
        return 1 / number

    results = abi.map(inverse, [1, 2, 0, 4], chunk=4)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert isinstance(caught.value, errors.TaskError)


def test_starting_is_noted(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    ref = nothing.options(max_retries=0).remote()
    connected.daemon.say(Kind.STARTING, Starting(ref.seq))
    connected.session.wait(lambda: bool(connected.session.starting), 10)
    assert connected.session.starting == {ref.seq}
