"""Exceptions cross processes and turn into words and back."""

import pickle

import pytest

from abi import errors
from abi.errors import AbiError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AbiError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_loads_again_with_all_it_carries(kind: type[AbiError]) -> None:
    error = kind("what happened", hint="what to do")
    loaded = pickle.loads(pickle.dumps(error))
    assert type(loaded) is kind
    assert vars(loaded) == vars(error)
    assert str(loaded) == "what happened\n  hint: what to do"
    assert kind.__doc__


def test_builtin_families() -> None:
    assert issubclass(errors.TaskTimedOut, TimeoutError)
    assert issubclass(errors.GetTimeoutError, TimeoutError)
    assert issubclass(errors.SerializationError, TypeError)
    assert issubclass(errors.QueueFullError, errors.Busy)


def test_an_answer_becomes_the_error_it_stands_for() -> None:
    busy = errors.error_from({"code": "busy", "message": "full", "hint": "wait", "retry_after_ms": 40})
    assert isinstance(busy, errors.Busy)
    assert (busy.message, busy.hint, busy.retry_after_ms) == ("full", "wait", 40)
    assert isinstance(errors.error_from({"code": "not_found", "message": "no"}), errors.NotFound)


def test_a_code_of_a_newer_daemon_is_kept() -> None:
    error = errors.error_from({"code": "too_purple"})
    assert type(error) is AbiError
    assert (error.code, error.message) == ("too_purple", "too_purple")
