"""What a task raised there is what `get` raises here: both TaskError and the user's type."""

from __future__ import annotations

import pickle
from typing import Any, cast

import pytest

from abi import errors
from abi.failure import combined, error_of, failure_of, lost
from abi.wire.codec import encode_failure
from abi.wire.schema import End, EndKind, Failure

PREFIX = b"node-ses"


class WithFields(ValueError):
    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class KeywordsOnly(Exception):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


class TwoForOne(Exception):
    """What everybody writes: pickle would call it with one argument."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Disk(OSError):
    def __init__(self, number: int) -> None:
        super().__init__(28, f"disk {number} is full")
        self.number = number


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("never")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def travelled(exception: BaseException) -> BaseException:
    try:
        raise exception
    except BaseException as caught:
        failure = failure_of(caught, "node7", "work")
    return error_of(End(5, EndKind.ERROR, encode_failure(failure), 2), PREFIX)


@pytest.mark.parametrize(
    "exception",
    [
        WithFields("boom", code=7),
        KeywordsOnly(reason="why"),
        TwoForOne(4, "gone"),
        Disk(5),
        KeyError("k"),
        FileNotFoundError(2, "nothing there", "/x"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        StopIteration(3),
        errors.GetTimeoutError("inner"),
        errors.TaskTimedOut("inner", host="other"),
    ],
    ids=lambda exception: type(exception).__name__,
)
def test_both_types(exception: Exception) -> None:
    error = travelled(exception)
    assert isinstance(error, errors.TaskError)
    assert isinstance(error, type(exception))
    assert error.args == exception.args
    assert type(error.cause) is type(exception)
    assert (error.task_name, error.host, error.attempt) == ("work", "node7", 2)
    assert "in travelled" in error.remote_traceback
    assert str(error).startswith(str(exception))
    assert error.remote_traceback.rstrip() in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_attributes_come_along() -> None:
    error = cast(Any, travelled(WithFields("boom", code=7)))
    assert error.code == 7
    assert isinstance(error, combined(WithFields))
    missing = cast(Any, travelled(FileNotFoundError(2, "nothing there", "/x")))
    assert (missing.errno, missing.filename) == (2, "/x")


class NotFound(Exception):
    code = 404
    hint = "as werkzeug's"


class RpcError(Exception):
    """As grpc's: methods where we have attributes; and all else that we call on an exception is its own."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = [message]
        self.remote_traceback = 3
        self.attempt = "first"

    def code(self) -> str:
        return "UNAVAILABLE"

    @property
    def cause(self) -> str:
        return f"the cause of {self.message}"

    def add_note(self, note: str) -> None:
        raise AssertionError(note)

    def with_traceback(self, traceback: Any) -> Any:
        raise AssertionError(traceback)


class Timed(errors.TaskTimedOut):
    host = "the user's"


def test_the_user_s_class_wins_for_every_name_it_defines() -> None:
    missing = cast(Any, travelled(NotFound("x")))
    assert (missing.code, missing.hint, missing.message) == (404, "as werkzeug's", "x")
    for error in (travelled(RpcError("x")), pickle.loads(pickle.dumps(travelled(RpcError("x"))))):
        rpc = cast(Any, error)
        assert isinstance(error, errors.TaskError)
        assert rpc.code() == "UNAVAILABLE"
        assert rpc.cause == "the cause of ['x']"
        assert (rpc.message, rpc.remote_traceback, rpc.attempt) == (["x"], 3, "first")
        assert (rpc.task_name, rpc.host) == ("work", "node7"), "and ours where it defines nothing"
        assert str(error).startswith("x\n\nin the worker:\n")
        assert "in travelled" in str(error)
        assert error.__notes__[-1].endswith("on node7, attempt 2")
    assert cast(Any, travelled(Timed("x", host="node1"))).host == "node1", "as it set it"


def test_an_error_that_travels_on_is_still_the_user_s() -> None:
    """A task that gets another's failure: what it raises is told as the first exception."""
    again = cast(Any, travelled(travelled(RpcError("x"))))
    assert again.code() == "UNAVAILABLE"
    assert again.cause == "the cause of ['x']"


def test_our_own_base_class_as_a_task_s_exception() -> None:
    for exception in (errors.AbiError("x"), Exception("x")):
        error = travelled(exception)
        assert isinstance(error, errors.TaskError)
        assert error.code == "error"
        assert type(error.cause) is type(exception)


def test_an_init_with_other_arguments_than_args_is_not_called() -> None:
    error = cast(Any, travelled(TwoForOne(4, "gone")))
    assert isinstance(error, TwoForOne)
    assert (error.code, error.args) == (4, ("4: gone",))
    assert cast(Any, travelled(Disk(5))).number == 5


def test_what_does_not_load_arrives_as_text_and_says_why() -> None:
    exception = Unpicklable("why")
    error = travelled(exception)
    assert (
        "Unpicklable itself did not come along: it does not pickle and load again (RuntimeError: never)"
        in (error.__notes__[0])
    )
    assert type(error).__name__ == "TaskError"
    assert isinstance(error, errors.TaskError)
    assert error.cause is None
    assert f"{type(exception).__name__}: why" in str(error)


def test_a_task_s_exit_does_not_end_the_program() -> None:
    error = travelled(SystemExit(3))
    assert type(error).__mro__.count(errors.TaskError)
    assert not isinstance(error, SystemExit)


def test_text_that_cannot_be_made() -> None:
    assert "NoText" in str(travelled(NoText()))


def test_notes_say_where(capsys: Any) -> None:
    noted = ValueError("x")
    noted.add_note("the user's own")
    assert travelled(noted).__notes__[0] == "the user's own"
    assert travelled(noted).__notes__[1].endswith(") on node7, attempt 2")


def test_own_frames_are_left_out() -> None:
    def fails() -> None:
        combined(5)  # type: ignore[arg-type]  # raises inside of abi

    with pytest.raises(TypeError) as caught:
        fails()
    assert "in fails" in failure_of(caught.value).traceback
    assert 'failure.py"' not in failure_of(caught.value).traceback.replace("test_failure.py", "")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (EndKind.CRASHED, errors.WorkerCrashedError),
        (EndKind.CANCELLED, errors.TaskCancelledError),
        (EndKind.TIMED_OUT, errors.TaskTimedOut),
        (EndKind.LOST, errors.TaskLostError),
        (EndKind.REFUSED, errors.Refused),
        (EndKind.RELEASED, errors.TaskError),
    ],
)
def test_the_other_ends(kind: EndKind, expected: type[BaseException]) -> None:
    failure = Failure("", "signal 9 (SIGKILL)", stderr="last\nwords\n")
    told = error_of(End(5, kind, encode_failure(failure)), PREFIX)
    assert type(told) is expected
    assert "signal 9" in str(told)
    assert type(error_of(End(5, kind), PREFIX)) is expected
    assert isinstance(error_of(End(5, kind, b"\xc1"), PREFIX), expected)


def test_without_a_name_nothing_is_said_twice() -> None:
    error = error_of(End(5, EndKind.CANCELLED), PREFIX)
    assert str(error).startswith("task (")
    assert error.__notes__[0].startswith("in task (")


def test_last_words() -> None:
    failure = Failure("", "signal 9 (SIGKILL)", stderr="last\nwords\n")
    told = error_of(End(5, EndKind.CRASHED, encode_failure(failure)), PREFIX)
    assert str(told).endswith("last lines of its standard error:\n    last\n    words")


def test_a_lost_session() -> None:
    assert isinstance(error_of(lost(5, "gone"), PREFIX), errors.SessionLost)
