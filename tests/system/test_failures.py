"""What `get` raises for what a task raised: both TaskError and the task's own, told as Python would tell it."""

from __future__ import annotations

import os
import pickle
import subprocess
import traceback
from typing import Any

import pytest

import abi
import abi_worker
from abi import errors
from tests.system.harness import Daemon
from tests.system.scripts import run_script
from tests.system.work import Detailed, Keyword, Locked, echo, fail

pytestmark = pytest.mark.usefixtures("program")


OURS = (os.path.dirname(abi.__file__) + os.sep, os.path.dirname(abi_worker.__file__) + os.sep)
"""Where our own frames are."""


def raised_by(ref: abi.Ref[Any]) -> errors.TaskError:
    with pytest.raises(errors.TaskError) as caught:
        abi.get(ref)
    return caught.value


class OfMain(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


# --- both types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [ValueError, KeyError, RuntimeError, TimeoutError, MemoryError, StopIteration, RecursionError, OfMain]
)
def test_either_except_clause_catches_it(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        abi.get(fail.remote("told", kind))
    assert isinstance(caught.value, errors.TaskError)
    assert isinstance(caught.value, errors.AbiError)
    assert type(caught.value.cause) is kind
    assert "told" in str(caught.value)


def test_exceptions_with_more_in_them_keep_it() -> None:
    @abi.remote
    def raise_one(n: int) -> None:
        if n == 0:
            raise Detailed("words", {"a": 1})
        if n == 1:
            open("/no/such/file").close()
        if n == 2:
            b"\xff".decode("utf-8")
        if n == 3:
            import json

            json.loads("{")
        if n == 4:
            subprocess.run(["false"], check=True)
        if n == 5:
            raise SystemError("a", 2)
        if n == 6:
            error = ValueError("noted")
            error.add_note("a note of the user's")
            raise error

    assert raised_by(raise_one.remote(0)).detail == {"a": 1}  # type: ignore[attr-defined]
    missing: Any = raised_by(raise_one.remote(1))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.filename) == (2, "/no/such/file")
    undecoded: Any = raised_by(raise_one.remote(2))
    assert isinstance(undecoded, UnicodeDecodeError)
    assert (undecoded.start, undecoded.encoding) == (0, "utf-8")
    assert raised_by(raise_one.remote(3)).lineno == 1  # type: ignore[attr-defined]
    process: Any = raised_by(raise_one.remote(4))
    assert isinstance(process, subprocess.CalledProcessError)
    assert process.returncode == 1
    assert raised_by(raise_one.remote(5)).args == ("a", 2)
    assert "a note of the user's" in raised_by(raise_one.remote(6)).__notes__


def test_an_error_pickles_again_and_says_the_same() -> None:
    for ref in (fail.remote("told"), fail.remote("told", OfMain), fail.remote("told", SystemExit)):
        error = raised_by(ref)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert (again.task_id, again.attempt) == (error.task_id, error.attempt)


def test_every_get_raises_an_error_of_its_own() -> None:
    ref = fail.remote("told")
    first, second = raised_by(ref), raised_by(ref)
    assert first is not second, "or the second get would grow the first one's traceback"
    assert len(traceback.extract_tb(second.__traceback__)) == len(traceback.extract_tb(first.__traceback__))


# --- where and when ---------------------------------------------------------------------------------------------------


def test_the_remote_traceback_has_the_users_frames_and_none_of_ours() -> None:
    @abi.remote
    def outer() -> None:
        inner()

    def inner() -> None:
        raise ValueError("deep inside")

    error = raised_by(outer.remote())
    assert "in outer" in error.remote_traceback
    assert "in inner" in error.remote_traceback
    assert "inner()" in error.remote_traceback, "with the lines of the source"
    for ours in OURS:
        assert ours not in error.remote_traceback
    assert "deep inside" in error.remote_traceback
    told = "".join(traceback.format_exception(error))
    assert told.count("in inner") == 1, "told once"
    here = traceback.extract_tb(error.__traceback__)
    assert sum(frame.filename.startswith(OURS[0]) for frame in here) <= 1, "one line of ours on this side"


def test_notes_tell_task_host_and_attempt() -> None:
    ref = fail.options(name="the name").remote("told")
    error = raised_by(ref)
    [note] = error.__notes__
    for words in ("the name", ref.short, "attempt 1", error.host):
        assert words in note
    assert (error.task_id, error.task_name, error.attempt) == (ref.short, "the name", 1)
    assert error.host


def test_the_attempt_is_the_one_that_failed() -> None:
    error = raised_by(fail.options(retry_exceptions=True, max_retries=2).remote("again"))
    assert error.attempt == 3


def test_causes_and_contexts_are_told() -> None:
    @abi.remote
    def chained() -> None:
        try:
            try:
                raise KeyError("the first")
            except KeyError as error:
                raise ValueError("the second") from error
        except ValueError:
            raise RuntimeError("the third")  # noqa: B904

    told = raised_by(chained.remote()).remote_traceback
    for words in ("the first", "direct cause", "the second", "During handling", "the third"):
        assert words in told


def test_a_failure_within_a_nested_get_tells_both_places() -> None:
    @abi.remote
    def parent() -> None:
        abi.get(fail.remote("from the child"))

    error = raised_by(parent.remote())
    assert isinstance(error, ValueError)
    assert "in parent" in str(error)
    assert "in fail" in str(error)
    assert type(error.cause) is ValueError, "not an error of an error"
    nested = raised_by(echo.remote(parent.remote()))
    assert isinstance(nested, ValueError)


# --- what does not travel ---------------------------------------------------------------------------------------------


def test_an_exception_whose_init_takes_other_arguments_keeps_its_type() -> None:
    @abi.remote
    def keyword_only() -> None:
        raise Keyword(code=7)

    with pytest.raises(Keyword) as caught:
        abi.get(keyword_only.remote())
    assert caught.value.code == 7
    assert isinstance(caught.value, errors.TaskError)
    assert "in keyword_only" in str(caught.value)


def test_an_exception_that_does_not_pickle_arrives_as_text() -> None:
    @abi.remote
    def locked() -> None:
        raise Locked("cannot travel")

    @abi.remote
    def carries() -> None:
        error = Detailed("carries", {})
        error.more = lambda: iter(())
        error.more = (n for n in range(3))
        raise error

    for ref, words in ((locked.remote(), "cannot travel"), (carries.remote(), "carries")):
        error = raised_by(ref)
        assert error.cause is None
        assert words in str(error)


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hostile(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(3)

    def __repr__(self) -> str:
        raise KeyboardInterrupt


def test_exceptions_whose_own_methods_raise() -> None:
    @abi.remote
    def silent() -> None:
        raise Silent("x")

    @abi.remote
    def hostile() -> None:
        raise Hostile("y")

    assert "Silent" in str(raised_by(silent.remote()))
    assert "Hostile" in str(raised_by(hostile.remote()))
    assert abi.get(echo.remote(1)) == 1


def test_lone_surrogates_and_control_characters_in_a_text() -> None:
    error = raised_by(fail.remote("bad \udcff \x00 ü 漢"))
    assert "ü 漢" in str(error)


def test_what_is_no_exception_class_of_here() -> None:
    @abi.remote
    def made_there() -> None:
        import types

        module = types.ModuleType("only_there")
        exec("class Odd(Exception): pass", module.__dict__)
        raise module.Odd("made in the worker")

    error = raised_by(made_there.remote())
    assert "Odd" in str(error)
    assert "made in the worker" in str(error)


# --- kinds that are no Exception --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_an_exit_in_a_task_is_its_failure_and_not_ours(kind: type[BaseException]) -> None:
    error = raised_by(fail.remote("3", kind))
    assert kind.__name__ in str(error)
    assert not isinstance(error, kind) or kind is BaseException
    assert abi.get(echo.remote(1)) == 1


def test_sys_exit_in_a_task_does_not_end_its_worker() -> None:
    @abi.remote(num_cpus=2)
    def leave() -> None:
        raise SystemExit(0)

    @abi.remote(num_cpus=2)
    def where() -> int:
        import os

        return os.getpid()

    before = abi.get(where.remote())
    assert "SystemExit" in str(raised_by(leave.remote()))
    assert abi.get(where.remote()) == before


def test_exception_groups() -> None:
    @abi.remote
    def several() -> None:
        raise ExceptionGroup("two", [ValueError("the first"), ExceptionGroup("inner", [KeyError("the second")])])

    error: Any = raised_by(several.remote())
    assert isinstance(error, ExceptionGroup)
    assert [type(one) for one in error.exceptions] == [ValueError, ExceptionGroup]
    caught = []
    try:
        abi.get(several.remote())
    except* ValueError as group:
        caught.append(str(group.exceptions[0]))
    except* KeyError:
        caught.append("keys")
    assert caught == ["the first", "keys"]
    assert "the first" in error.remote_traceback
    assert "the second" in error.remote_traceback


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception], *, code: int) -> OwnGroup:
        return super().__new__(cls, f"group {code}", errors)

    def __init__(self, errors: list[Exception], *, code: int) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return _own_group, (list(self.exceptions), self.code)


def _own_group(errors: list[Exception], code: int) -> OwnGroup:
    return OwnGroup(errors, code=code)


def test_a_group_of_the_users_own_class() -> None:
    @abi.remote
    def own() -> None:
        raise OwnGroup([ValueError("in it")], code=4)

    error: Any = raised_by(own.remote())
    assert isinstance(error, OwnGroup)
    assert (error.code, str(error.exceptions[0])) == (4, "in it")


def test_a_group_of_a_coroutines_tasks() -> None:
    @abi.remote
    async def grouped() -> None:
        import asyncio

        async def bad(word: str) -> None:
            raise ValueError(word)

        async with asyncio.TaskGroup() as group:
            group.create_task(bad("one"))
            group.create_task(bad("two"))

    error: Any = raised_by(grouped.remote())
    assert {str(one) for one in error.exceptions} == {"one", "two"}


# --- in a program -----------------------------------------------------------------------------------------------------


def test_an_uncaught_error_ends_a_program_as_python_does(program: Daemon) -> None:
    done = run_script(
        program,
        """
        import abi

        class Own(Exception):
            pass

        @abi.remote
        def broken(x):
            return 1 / x

        @abi.remote
        def own():
            raise Own("of this program")

        try:
            abi.get(own.remote())
        except Own as error:
            print("caught", error.cause)
        abi.get(broken.remote(0))
        """,
    )
    assert (done.returncode, done.stdout) == (1, "caught of this program\n")
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("return 1 / x" in line for line in lines)
    assert any("ZeroDivisionError: division by zero" in line for line in lines)
    assert "attempt 1" in lines[-1]
    assert len(lines) < 20, done.stderr
