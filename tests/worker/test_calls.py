"""Calls in a real worker: arguments, results, failures, and what a task may do to its process."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from abi.objects import memfd, payload
from abi.wire.codec import decode_failure
from abi.wire.schema import Call, Dependency, End, EndKind, Failure, Function, Kind, Options, Part, Run
from tests.worker.zygote_harness import Process, Zygote, await_death


def add(first: int, second: int = 10) -> int:
    return first + second


def divide(number: int) -> float:
    return 1 / number


def leave() -> None:
    sys.exit(5)


def recurse() -> None:
    recurse()


def lock() -> Any:
    import threading

    return [1, {"deep": threading.Lock()}]


def zeros(size: int) -> bytes:
    return bytes(size)


async def wait_and_double(number: int) -> int:
    await asyncio.sleep(0)
    asyncio.get_running_loop().create_task(asyncio.sleep(1000))
    return 2 * number


def surroundings() -> dict[str, Any]:
    import __main__

    return {
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "main": getattr(__main__, "__file__", ""),
        "stdin": sys.stdin.read(),
        "session": os.getsid(0) == os.getpid(),
        "oom": int(open("/proc/self/oom_score_adj").read()),
    }


def go_to(path: str) -> str:
    os.chdir(path)
    return os.getcwd()


def print_three(word: str) -> None:
    print(word, "out")
    print(word, "err", file=sys.stderr)
    subprocess.run(["sh", "-c", f"echo {word} child"], check=True)
    print(word, "partial", end="")


def close_everything() -> None:
    os.closerange(3, 256)


def fork_and_forget_to_exit() -> int | None:
    child = os.fork()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else None


def sleep_in_nested_wait() -> Any:
    from abi import session

    return session.current().wait(lambda: False, 0.01)


def failure_in(end: End) -> Failure:
    assert end.kind == EndKind.ERROR
    return decode_failure(end.payload)


def test_arguments_and_values(worker: Process) -> None:
    worker.define(1, add)
    assert worker.value_of(worker.call(1, 1)) == 11
    assert worker.value_of(worker.call(1, 1, second=2)) == 3
    end = worker.end_of(worker.call(1, 5))
    assert (end.attempt, end.retry, pickle.loads(end.payload)) == (1, False, 15)
    assert end.ran_ns > 0


def test_none_is_no_bytes(worker: Process) -> None:
    worker.define(1, print)
    assert worker.end_of(worker.call(1)).payload == b""


def test_dependencies_take_their_places(worker: Process) -> None:
    worker.define(1, add)
    number = worker.reserve()
    arguments = pickle.dumps(((None,), {"second": None}))
    dependencies = [Dependency(0, 77), Dependency(1, 78)]
    large = payload.pack(pickle.dumps(5), [])
    values = [Part(pickle.dumps(3)), Part(b"", large.size)]
    call = Call(number, number, 1, 1, 0, arguments, 0, dependencies, values)
    worker.side.send(Kind.RUN, Run(0, [call]), [large.fd])
    assert worker.value_of(number) == 8


def test_large_arguments_and_results_pass_beside_the_frame(worker: Process) -> None:
    worker.define(1, bytes)
    number = worker.reserve()
    large = payload.pack(pickle.dumps(((b"x" * 1_000_000,), {})), [])
    worker.side.send(Kind.RUN, Run(0, [Call(number, number, 1, 1, 0, b"", large.size)]), [large.fd])
    end, descriptors = worker.side.await_with_descriptors(Kind.RESULT)
    assert (end.kind, end.payload) == (EndKind.OK, b"")
    stream, buffers = payload.unpack(memfd.open_view(descriptors[0], end.size))
    assert pickle.loads(stream, buffers=buffers) == b"x" * 1_000_000


def test_several_results_each_small_or_large(worker: Process) -> None:
    worker.define_options(Options(5, returns=3))
    worker.define(1, list)
    number = worker.reserve()
    large = payload.pack(pickle.dumps((([1, b"x" * 200_000, "three"],), {})), [])
    worker.side.send(Kind.RUN, Run(0, [Call(number, number, 1, 1, 5, b"", large.size)]), [large.fd])
    end, descriptors = worker.side.await_with_descriptors(Kind.RESULT)
    assert [bool(part.size) for part in end.parts] == [False, True, False]
    assert len(descriptors) == 1
    failed = worker.end_of(worker.call(1, [1, 2], options=5))
    assert "was to return 3 values and returned 2" in failure_in(failed).text


def test_an_error_says_what_happened_without_our_frames(worker: Process) -> None:
    worker.define(1, divide)
    end = worker.end_of(worker.call(1, 0))
    failure = failure_in(end)
    assert (failure.type_name, failure.host) == ("ZeroDivisionError", "here")
    assert "in divide" in failure.traceback
    assert "abi_worker" not in failure.traceback
    assert not end.retry


def test_the_worker_judges_what_is_to_be_retried(worker: Process) -> None:
    worker.define(1, divide)
    worker.define_options(Options(5, retry_exceptions=True))
    worker.define_options(Options(6, retry_exceptions=True, retry_types=pickle.dumps((OSError,))))
    assert worker.end_of(worker.call(1, 0, options=5)).retry
    assert not worker.end_of(worker.call(1, 0, options=6)).retry


def test_an_exit_and_a_recursion_are_errors_of_the_task(worker: Process) -> None:
    worker.define(1, leave)
    worker.define(2, recurse)
    worker.define(3, add)
    assert failure_in(worker.end_of(worker.call(1))).type_name == "SystemExit"
    assert failure_in(worker.end_of(worker.call(2))).type_name == "RecursionError"
    assert worker.value_of(worker.call(3, 1)) == 11


def test_what_does_not_load_says_what_and_where_was_looked(worker: Process) -> None:
    worker.define(1, b"cnowhere.at_all\nf\n.", name="nowhere.at_all.f")
    failure = failure_in(worker.end_of(worker.call(1)))
    assert "function nowhere.at_all.f does not load" in failure.text
    assert "No module named 'nowhere'" in failure.text
    assert sys.path[-1] in failure.text
    worker.define(2, add)
    number = worker.reserve()
    worker.side.send(Kind.RUN, Run(0, [Call(number, number, 1, 2, 0, b"rubbish")]))
    assert "the arguments of f do not load" in failure_in(worker.end_of(number)).text.replace("does", "do")


def test_a_result_that_does_not_pickle_is_an_error(worker: Process) -> None:
    worker.define(1, lock)
    failure = failure_in(worker.end_of(worker.call(1)))
    assert "the result of f" in failure.text
    assert "lock" in failure.text


def test_coroutines_share_a_loop_and_leave_nothing_in_it(worker: Process) -> None:
    worker.define(1, wait_and_double)
    assert [worker.value_of(worker.call(1, n)) for n in range(3)] == [0, 2, 4]


def test_the_world_is_the_programs(shared_zygote: Zygote, tmp_path: object) -> None:
    worker = shared_zygote.worker(
        901,
        directory=str(tmp_path),
        environment={"COLOUR": "blue"},
        sys_path=["/one", *sys.path],
        main_path="/program.py",
        gpu_ids=["GPU-b", "GPU-a"],
    )
    worker.define_options(Options(5, cpus=25_000))
    worker.define(1, surroundings)
    said = worker.value_of(worker.call(1, options=5))
    assert said["directory"] == str(tmp_path)
    assert (said["path"][0], said["main"], said["stdin"], said["session"]) == ("/one", "/program.py", "", True)
    assert said["oom"] >= 500
    assert said["environment"] == {
        "COLOUR": "blue",
        "ABI_SOCKET": "/nowhere",
        "ABI_WORKER": "1",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    worker.side.close()


def test_a_directory_that_is_gone_is_said_and_survived(shared_zygote: Zygote) -> None:
    worker = shared_zygote.worker(902, directory="/no/such/place", environment={"OMP_NUM_THREADS": "7"})
    said = worker.run(surroundings)
    assert said["directory"] == "/"
    assert said["environment"]["OMP_NUM_THREADS"] == "7"
    assert "/no/such/place" in worker.side.await_item(Kind.PRINTED).data.decode()
    worker.side.close()


def test_each_call_begins_in_the_programs_directory(worker: Process) -> None:
    worker.define(1, go_to)
    worker.define(2, os.getcwd)
    assert worker.value_of(worker.call(1, "/tmp")) == "/tmp"
    assert worker.value_of(worker.call(2)) == "/"


def test_prints_belong_to_their_call_and_come_before_its_result(worker: Process) -> None:
    worker.define(1, print_three)
    numbers = [worker.reserve() for _ in range(2)]
    calls = [worker.make_call(number, 1, (word,)) for number, word in zip(numbers, ("one", "two"), strict=True)]
    worker.side.send(Kind.RUN, Run(0, calls))
    worker.side.await_item(Kind.RESULT, lambda end: end.seq == numbers[1])
    printed: dict[tuple[int, int], bytes] = {}
    for kind, item, _ in worker.side.inbox:
        if kind == Kind.PRINTED:
            printed[item.number, item.stream] = printed.get((item.number, item.stream), b"") + item.data
    for number, word in zip(numbers, ("one", "two"), strict=True):
        assert printed[number, 1] == f"{word} out\n{word} child\n{word} partial".encode()
        assert printed[number, 2] == f"{word} err\n".encode()
    order = [(kind, getattr(item, "number", 0) or item.seq) for kind, item, _ in worker.side.inbox]
    assert order.index((Kind.PRINTED, 1)) < order.index((Kind.RESULT, 1)) < order.index((Kind.PRINTED, 2))


def test_a_worker_waits_while_the_daemon_reads(worker: Process) -> None:
    worker.define(1, print_three)
    worker.page.reading = 1
    number = worker.call(1, "mine")
    while worker.page.running == number or not worker.page.started:
        os.sched_yield()
    assert not worker.page.owns_pipes(number)
    assert os.read(worker.stdout, 100).startswith(b"mine out"), "the worker has not touched it"
    worker.page.reading = 0
    worker.end_of(number)
    assert all(kind != Kind.PRINTED or item.stream == 2 for kind, item, _ in worker.side.inbox)


def test_recalled_calls_do_not_start(worker: Process) -> None:
    worker.define(1, add)
    worker.value_of(worker.call(1, 0))
    worker.page.epoch = 3
    old = [worker.reserve() for _ in range(3)]
    worker.side.send(Kind.RUN, Run(2, [worker.make_call(number, 1, (1,)) for number in old]))
    new = worker.call(1, 1, epoch=3)
    assert worker.value_of(new) == 11
    dropped = [item.number for kind, item, _ in worker.side.inbox if kind == Kind.DROPPED]
    assert dropped == old[:1], "only the one that was about to start says so"
    assert worker.page.started == new


def test_a_finished_result_does_not_wait_behind_a_long_call(worker: Process) -> None:
    worker.define(1, time.sleep)
    short, long = worker.reserve(), worker.reserve()
    worker.side.send(Kind.RUN, Run(0, [worker.make_call(short, 1, (0,)), worker.make_call(long, 1, (1000,))]))
    worker.end_of(short)
    while worker.page.running != long:  # it may be about to start
        os.sched_yield()


def test_a_call_that_may_start_once_runs_until_its_result_has_left(worker: Process) -> None:
    worker.define(1, add)
    number = worker.call(1, 1, options=1)
    assert worker.value_of(number) == 11
    while worker.page.running:
        os.sched_yield()


def test_a_worker_leaves_after_max_calls(shared_zygote: Zygote) -> None:
    worker = shared_zygote.worker(903)
    worker.define_options(Options(5, max_calls=2))
    worker.define(1, add)
    numbers = [worker.reserve() for _ in range(3)]
    worker.side.send(Kind.RUN, Run(0, [worker.make_call(number, 1, (1,), None, 5) for number in numbers]))
    assert worker.value_of(numbers[1]) == 11
    worker.side.await_end()
    assert shared_zygote.exit_of(worker) == 0
    assert worker.page.running == 0


def test_a_task_that_closes_all_descriptors_ends_its_worker_only(shared_zygote: Zygote) -> None:
    worker = shared_zygote.worker(904)
    worker.define(1, close_everything)
    worker.call(1)
    assert os.waitstatus_to_exitcode(shared_zygote.exit_of(worker)) == 75
    await_death(worker.pid)


def test_a_forked_child_that_returns_does_not_speak_for_its_parent(worker: Process) -> None:
    worker.define(1, fork_and_forget_to_exit)
    assert worker.value_of(worker.call(1)) == -signal.SIGSEGV
    assert worker.run(abs, -1) == 1
    assert worker.page.started == 2


def test_waiting_for_others_is_told_at_once(worker: Process) -> None:
    worker.define(1, sleep_in_nested_wait)
    number = worker.call(1)
    assert worker.side.await_item(Kind.BLOCKED).number == number
    assert worker.side.await_item(Kind.UNBLOCKED).number == number
    assert worker.value_of(number) is False


@pytest.mark.parametrize("size", [0, 300_000])
def test_a_large_function_travels_beside_the_frame(worker: Process, size: int) -> None:
    pickled = pickle.dumps((b"x" * size).__len__)
    large = memfd.create([pickled])
    worker.side.send(Kind.FUNCTION, Function(1, b"", "length", None, large.size), [large.fd])
    assert worker.value_of(worker.call(1)) == size
