"""What goes out comes back, and what cannot go says which part of it is to blame."""

from __future__ import annotations

import array
import math
import threading
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abi.errors import SerializationError
from abi.objects.memfd import open_view
from abi.pickling import (
    REFERENCES_MAX,
    _is_plain,
    dumps_arguments,
    dumps_function,
    dumps_value,
    loads_arguments,
    loads_function,
    loads_value,
)
from abi.remote_function import remote
from abi.wire.codec import encode_items
from abi.wire.frames import FRAME_BYTES_MAX
from abi.wire.schema import Dependency, Task
from tests.lib.conftest import Connected

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    atoms | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(atoms)
        | st.lists(inner).map(lambda items: OrderedDict(enumerate(items)))
    ),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(values).map(tuple), st.dictionaries(st.text(), values))
def test_arguments_come_back(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    payload, size, blob, dependencies, nested, keep = dumps_arguments(args, kwargs)
    assert (size, blob, dependencies, nested, keep) == (0, None, None, None, None)
    assert loads_arguments(payload) == (args, kwargs)


@settings(max_examples=50, deadline=None)
@given(values)
def test_values_come_back(value: Any) -> None:
    payload, size, blob, nested = dumps_value(value)
    assert (size, blob, nested) == (0, None, None)
    back = loads_value(payload)
    assert back == value
    assert type(back) is type(value)


def test_nothing_is_no_bytes() -> None:
    assert dumps_arguments((), {})[0] == b""
    assert dumps_value(None)[0] == b""
    assert loads_arguments(b"") == ((), {})
    assert loads_value(b"") is None


def test_large_bytes_travel_in_a_memfd_and_buffers_stay_in_it() -> None:
    value = {"bytes": b"x" * 200_000, "numbers": array.array("d", [math.pi] * 50_000)}
    payload, size, blob, _nested = dumps_value(value)
    assert payload == b""
    assert blob is not None
    assert size == blob.size > 600_000
    view = open_view(blob.fd, size)
    blob.close()
    assert loads_value(view) == value


class MyInt(int):
    pass


def test_only_exact_builtins_are_plain() -> None:
    assert _is_plain((1, "a", [1.5, (None, b"")], {"k": {1, 2}}))
    assert not _is_plain((MyInt(3),))
    assert not _is_plain(([[OrderedDict()]],))
    assert not _is_plain(([[[[[1]]]]],)), "too deep to look"
    back = loads_value(dumps_value([MyInt(3)])[0])
    assert type(back[0]) is MyInt


def test_references_at_top_level_are_dependencies_and_inner_ones_nested(connected: Connected) -> None:
    first, second = connected.session.put(1), connected.session.put(2)
    payload, _size, _blob, dependencies, nested, keep = dumps_arguments((7, first), {"key": second, "in": [second]})
    assert dependencies == [Dependency(1, first.seq), Dependency(2, second.seq)]
    assert nested == [second.seq]
    assert keep == [first, second, second]
    args, kwargs = loads_arguments(payload)
    assert args == (7, None)
    assert kwargs == {"key": None, "in": [second]}


def test_as_many_references_as_may_be_fit_into_a_message() -> None:
    largest = [Dependency(REFERENCES_MAX, (1 << 64) - 1, REFERENCES_MAX)] * REFERENCES_MAX
    assert len(encode_items([Task(1, 0, 0, bytes(100 * 1024), 0, largest, None)])) < FRAME_BYTES_MAX


def test_more_references_than_a_message_holds(connected: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abi.pickling.REFERENCES_MAX", 10)
    refs = [connected.session.put(number) for number in range(11)]
    for most in ((refs[0],) * 10, (refs[:10],), (refs[0], refs[1:10]), (refs[0], [refs[1]] * 20)):
        dumps_arguments(most, {})
    dumps_value(refs[:10])
    for more in ((refs[0],) * 11, (refs,), (refs[0], refs[1:]), (bytes(200_000), refs)):
        with pytest.raises(SerializationError, match="11 references are more than the 10") as caught:
            dumps_arguments(more, {})
        assert "abi.put" in caught.value.hint
    with pytest.raises(SerializationError, match="the result of f: 11 references"):
        dumps_value(refs, "the result of f")


@remote
def importable(number: int) -> int:
    return number + 1


def uses_importable(number: int) -> Any:
    return importable.__abi_function__(number)


def test_functions_by_name_and_by_value() -> None:
    by_name = dumps_function(importable.__abi_function__)
    assert len(by_name) < 120
    assert loads_function(by_name)(1) == 2
    assert loads_function(dumps_function(uses_importable)) is uses_importable
    factor = 3

    def closure(number: int) -> Any:
        return factor * importable.__abi_function__(number)

    assert loads_function(dumps_function(closure))(1) == 6
    assert loads_value(dumps_value(importable)[0]) is importable


class Model:
    def __init__(self) -> None:
        self.weights = [1, 2]
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"model": Model()}, "argument 'cfg' → ['model'] → .lock: cannot pickle '_thread.lock' object"),
        ([1, (2, threading.Lock())], "argument 'cfg' → [1] → [1]: cannot pickle '_thread.lock' object"),
        (threading.Lock(), "argument 'cfg': cannot pickle '_thread.lock' object"),
    ],
)
def test_the_error_says_where(value: Any, path: str) -> None:
    def function(number: int, cfg: Any) -> None: ...

    with pytest.raises(SerializationError) as caught:
        dumps_arguments((1, value), {}, function)
    assert caught.value.message == path
    with pytest.raises(SerializationError, match=r"argument 'cfg'"):
        dumps_arguments((), {"cfg": value}, function)


def test_the_error_names_a_function_s_variable() -> None:
    lock = threading.Lock()

    def holds() -> Any:
        return lock

    with pytest.raises(SerializationError, match=r"function '.*holds' → its variable 'lock': cannot pickle"):
        dumps_function(holds)


def test_a_result_in_the_error() -> None:
    with pytest.raises(SerializationError, match=r"the result of f → \[0\]: cannot pickle"):
        dumps_value([threading.Lock()], "the result of f")
