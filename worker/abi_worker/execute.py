"""One call beyond the short way: loading what it needs, running coroutines, and what it left — a result or a failure.

Everything here answers with an ``End``; nothing that a user's code, pickle or exception does gets out as an exception.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Callable
from types import CoroutineType
from typing import Any, Final

from abi import failure
from abi.errors import SerializationError
from abi.objects import memfd
from abi.objects import payload as container
from abi.objects.blob import Blob
from abi.pickling import dumps_value, loads_arguments, loads_function, loads_value
from abi.wire.codec import encode_failure
from abi.wire.frames import DESCRIPTORS_MAX
from abi.wire.schema import Call, End, EndKind, Failure, Function, Kind, Options, Part
from abi_worker.coroutines import Coroutines
from abi_worker.interrupt import Interrupts, call_builtin

_ERROR: Final = int(EndKind.ERROR)
_OK: Final = int(EndKind.OK)

_RESULT: Final = int(Kind.RESULT)

PARTS_INLINE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of all results of one task together; what exceeds it lies in shared memory, however small. Half of a frame."""

Entry = tuple[Any, ...]
"""What goes into the link's outbox: kind, end, and what carries the descriptors that go beside it."""


class Executor:
    """Keeps what was loaded. ``host`` is for the texts of failures."""

    def __init__(self, interrupts: Interrupts, host: str) -> None:
        self.host = host
        self.functions: dict[int, Callable[..., Any]] = {}
        """By index, ready to be called."""
        self.names: dict[int, str] = {}
        self._result_names: dict[int, str] = {}
        self.unsent: list[Blob] = []
        self._pickles: dict[int, bytes] = {}
        self._retry_types: dict[bytes, tuple[type[BaseException], ...]] = {}
        self._interrupts = interrupts
        self._coroutines = Coroutines(interrupts)

    def define(self, function: Function, fd: int | None) -> None:
        """Takes note of a function; it is loaded at its first call, in that call's name."""
        self.names[function.index] = function.name
        self._result_names[function.index] = f"the result of {function.name}"
        if function.pickled is not None:
            self._pickles[function.index] = function.pickled
        elif fd is not None:
            self._pickles[function.index] = bytes(view_of(fd, function.size))

    def load(self, index: int) -> Callable[..., Any]:
        """Raises SerializationError. The pickle is kept: a module that is missing now may be there for the next try."""
        name = self.names.get(index, f"number {index}")
        try:
            function = loads_function(self._pickles[index])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise SerializationError(_cannot_load(f"function {name}", error)) from error
        if inspect.iscoroutinefunction(function):
            function = self._coroutines.wrap(function)
        self.functions[index] = call_builtin(function)
        return self.functions[index]

    def inline_arguments(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The common case of ``arguments``: bytes, and no dependencies."""
        try:
            return loads_arguments(call.arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise SerializationError(_cannot_load(f"the arguments of {self.names[call.function]}", error)) from error

    def arguments(self, call: Call, descriptors: list[int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """With the dependencies' values in their places. Closes the descriptors. Raises SerializationError."""
        name = self.names.get(call.function, "")
        fds = iter(descriptors)
        views = [view_of(next(fds), size) if size else None for size in (call.size, *_sizes(call.values))]
        try:
            args, kwargs = loads_arguments(call.arguments if views[0] is None else views[0])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise SerializationError(_cannot_load(f"the arguments of {name}", error)) from error
        if not call.dependencies:
            return args, kwargs
        positional, keys = list(args), list(kwargs)
        for dependency, part, view in zip(call.dependencies, call.values or [], views[1:], strict=True):
            try:
                value = loads_value(part.payload if view is None else view)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise SerializationError(_cannot_load(f"argument {dependency.position} of {name}", error)) from error
            if dependency.position < len(positional):
                positional[dependency.position] = value
            else:
                kwargs[keys[dependency.position - len(positional)]] = value
        return tuple(positional), kwargs

    def result(self, call: Call, options: Options, value: Any, ran_ns: int) -> Entry:
        """The value's end, in one payload or as many as the options say."""
        try:
            if type(value) is CoroutineType:  # from a decorated function that does not say it is one
                value = self._finish(value)
            if options.returns != 1:
                return self._parts(call, options.returns, value, ran_ns)
            payload, size, blob, nested = dumps_value(value, self._result_names[call.function])
            end = End(call.seq, _OK, payload, call.attempt, size, ran_ns, nested)
            return (_RESULT, end) if blob is None else (_RESULT, end, blob)
        except BaseException as error:
            return _RESULT, self.failed(call, options, error, ran_ns)

    def _finish(self, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        self._interrupts.inside = True
        try:
            return self._coroutines.run(coroutine)
        finally:
            self._interrupts.inside = False

    def _parts(self, call: Call, returns: int, value: Any, ran_ns: int) -> Entry:
        name = self.names.get(call.function, "")
        if returns == 0:
            return _RESULT, End(call.seq, _OK, b"", call.attempt, 0, ran_ns, None, [])
        try:
            values = list(value)
        except TypeError:
            raise TypeError(f"{name} was to return {returns} values and returned one {type(value).__name__}") from None
        if len(values) != returns:
            raise ValueError(f"{name} was to return {returns} values and returned {len(values)}")
        parts: list[Part] = []
        nested: list[int] = []
        blobs: list[Blob] = []
        room = PARTS_INLINE_BYTES_MAX
        for number, part in enumerate(values):
            payload, size, blob, inside = dumps_value(part, f"result {number} of {name}")
            room -= len(payload)
            if room < 0 and payload:
                blob = container.pack(payload, [])
                payload, size = b"", blob.size
            parts.append(Part(payload, size))
            nested += inside or []
            if blob is not None:
                blobs.append(blob)
        if len(blobs) > DESCRIPTORS_MAX:
            raise ValueError(
                f"{name} returned {len(parts)} values, too much for one task: {len(blobs)} of them lie in shared "
                f"memory of their own, and {DESCRIPTORS_MAX} may"
            )
        end = End(call.seq, _OK, b"", call.attempt, 0, ran_ns, nested or None, parts)
        if not blobs:
            return _RESULT, end
        self.unsent += blobs
        return _RESULT, end, [blob.fd for blob in blobs]

    def close_sent(self) -> None:
        """After a flush: the descriptors of several results beside one end are ours to close."""
        for blob in self.unsent:
            blob.close()
        self.unsent.clear()

    def failed(self, call: Call, options: Options, error: BaseException, ran_ns: int) -> End:
        """The end of a call that raised. ``retry`` is judged here, where the exception's type is known."""
        name = options.name or self.names.get(call.function, "")
        try:
            description = failure.failure_of(error, host=self.host, task_name=name)
            retry = options.retry_exceptions and self._is_retryable(error, options.retry_types)
        except BaseException as second:
            # An exception whose own methods fail, or an interrupt in the middle: the type's name always works.
            text = f"its description failed with {type(second).__name__}"
            description = Failure(failure.type_name(type(error)), text, host=self.host, task_name=name)
            retry = False
        return End(call.seq, _ERROR, encode_failure(description), call.attempt, 0, ran_ns, None, None, retry)

    def _is_retryable(self, error: BaseException, pickled: bytes | None) -> bool:
        if pickled is None:
            return isinstance(error, Exception)
        types = self._retry_types.get(pickled)
        if types is None:
            types = self._retry_types[pickled] = tuple(pickle.loads(pickled))
        return isinstance(error, types)


def view_of(fd: int, size: int) -> memoryview:
    """The payload in a received descriptor, which is closed."""
    try:
        return memfd.open_view(fd, size)
    finally:
        os.close(fd)


def _sizes(values: list[Part] | None) -> list[int]:
    return [part.size for part in values or ()]


def _cannot_load(what: str, error: BaseException) -> str:
    text = f"{what} does not load in the worker: {type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        text += f"; looked in sys.path: {', '.join(sys.path)}"
    return text
