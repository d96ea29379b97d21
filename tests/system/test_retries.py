"""A task's own failures: when they are retried, how often, and what the program gets in the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system.harness import Daemon
from tests.system.inside import session
from tests.system.words import note, notes


@pytest.fixture
def program(shared: Daemon) -> Iterator[Daemon]:
    with session(shared):
        yield shared


class Flaky(Exception):
    def __init__(self, *, code: int) -> None:  # keyword only: pickle alone could not load it again
        super().__init__(f"code {code}")
        self.code = code


class Flakier(Flaky):
    pass


@pytest.mark.parametrize(
    ("options", "kind", "starts"),
    [
        ({}, ValueError, 1),
        ({"retry_exceptions": False}, ValueError, 1),
        ({"retry_exceptions": True}, ValueError, 4),
        ({"retry_exceptions": True, "max_retries": 1}, ValueError, 2),
        ({"retry_exceptions": True, "max_retries": 0}, ValueError, 1),
        ({"retry_exceptions": [ValueError]}, ValueError, 4),
        ({"retry_exceptions": [ArithmeticError], "max_retries": 2}, ZeroDivisionError, 3),
        ({"retry_exceptions": [KeyError, OSError]}, ValueError, 1),
        ({"retry_exceptions": [Flaky]}, Flakier, 4),
        ({"retry_exceptions": [Flakier]}, Flaky, 1),
        ({"retry_exceptions": True}, SystemExit, 1),
        ({"retry_exceptions": [SystemExit]}, SystemExit, 4),
    ],
)
def test_a_failure_starts_again_as_the_options_say(
    program: Daemon, tmp_path: Path, options: dict[str, Any], kind: type[BaseException], starts: int
) -> None:
    log = str(tmp_path / "starts")

    @abi.remote(**options)
    def fails() -> None:
        task = abi.current_task()
        assert task is not None
        note(log, task.attempt)
        raise (kind(code=task.attempt) if issubclass(kind, Flaky) else kind(f"attempt {task.attempt}"))

    with pytest.raises(errors.TaskError) as failed:
        abi.get(fails.remote(), timeout=20)
    assert notes(log) == {str(attempt): 1 for attempt in range(1, starts + 1)}
    assert failed.value.attempt == starts
    assert f"{starts}" in str(failed.value), "it is the last failure that is told"
    if issubclass(kind, Flaky):
        assert f"{kind.__name__}: code {starts}" in str(failed.value), "it does not load again, so its text has come"
    elif issubclass(kind, Exception):
        assert isinstance(failed.value, kind)


def test_success_at_the_last_try(program: Daemon) -> None:
    @abi.remote(retry_exceptions=True)
    def fourth_time_lucky() -> int:
        task = abi.current_task()
        assert task is not None
        if task.attempt < 4:
            raise OSError("not yet")
        return task.attempt

    assert abi.get([fourth_time_lucky.remote() for _ in range(50)], timeout=20) == [4] * 50


def test_endless_retries_of_failures(program: Daemon) -> None:
    @abi.remote(retry_exceptions=[OSError], max_retries=-1)
    def patient() -> int:
        task = abi.current_task()
        assert task is not None
        if task.attempt <= 100:
            raise OSError("not yet")
        return task.attempt

    assert abi.get(patient.remote(), timeout=20) == 101


def test_deaths_and_failures_share_one_allowance(program: Daemon, tmp_path: Path) -> None:
    """``max_retries=3`` is at most four charged starts, whatever each of them came to."""
    log = str(tmp_path / "starts")

    @abi.remote(retry_exceptions=True)
    def both() -> None:
        task = abi.current_task()
        assert task is not None
        note(log, task.attempt)
        if task.attempt % 2:
            os._exit(1)
        raise OSError("failed")

    with pytest.raises(OSError, match="failed") as failed:
        abi.get(both.remote(), timeout=20)
    assert isinstance(failed.value, errors.TaskError)
    assert notes(log) == {str(attempt): 1 for attempt in range(1, 5)}


def test_who_needs_the_result_of_a_retried_task_waits_for_its_success(program: Daemon) -> None:
    @abi.remote(retry_exceptions=True)
    def second_time() -> str:
        task = abi.current_task()
        assert task is not None
        if task.attempt == 1:
            raise RuntimeError("first")
        return "second"

    @abi.remote
    def after(word: str) -> str:
        return f"after {word}"

    assert abi.get(after.remote(second_time.remote()), timeout=20) == "after second"


def test_a_task_that_ran_out_of_time_is_not_retried(program: Daemon, tmp_path: Path) -> None:
    log = str(tmp_path / "starts")

    @abi.remote(timeout=0.1, retry_exceptions=True)
    def slow() -> None:
        note(log, "start")
        time.sleep(60)

    with pytest.raises(errors.TaskTimedOut) as ended:
        abi.get(slow.remote(), timeout=20)
    assert ended.value.attempt == 1
    assert notes(log).total() <= 1, "its time may have been over before its first line"


def test_a_cancelled_task_is_not_retried(program: Daemon, tmp_path: Path) -> None:
    log = str(tmp_path / "starts")
    started = str(tmp_path / "started")

    @abi.remote(retry_exceptions=True, max_retries=-1)
    def turns_it_into_another() -> None:
        note(log, "start")
        Path(started).touch()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise ValueError("mine") from None

    ref = turns_it_into_another.remote()
    while not os.path.exists(started):
        time.sleep(0.002)
    abi.cancel(ref)
    with pytest.raises(errors.TaskCancelledError):
        abi.get(ref, timeout=20)
    assert notes(log) == {"start": 1}
