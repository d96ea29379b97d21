"""``abi.map``: one function over many items, many items to a task, results in order.

Lazy on its input and bounded in what is under way. A chunk is as many items as take ``CHUNK_NS`` by what the chunks
before it took: so small functions cost a fraction of a task each, and long ones go one by one and spread.
"""

# ruff: noqa: A001 — `abi.map` is the built-in `map`, elsewhere
from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import Any, Final, TypeVar, overload

from abi.errors import GetTimeoutError
from abi.failure import error_of
from abi.ref import Ref
from abi.remote_function import RemoteFunction, remote
from abi.session import current
from abi.wire.codec import encode_failure
from abi.wire.schema import UNITS, End, EndKind

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")

CHUNK_NS: Final = 10_000_000
"""Ten milliseconds: a hundred times what a task costs, and still a small share of a job's last second."""
GROWTH_MAX: Final = 16
"""From one chunk to the next: a first quick item proves little."""
CHUNK_ITEMS_MAX: Final = 10_000
WINDOW_PER_CPU: Final = 4
"""Chunks under way per processor: one runs, one waits beside it, two cover what is being sent and read."""
WINDOW_MAX: Final = 512
"""Chunks under way when they are shorter than CHUNK_NS, because the caller chose their size: then as many as make up
the same time, or each would wait for a round trip."""


class _Chunk:
    """What a worker calls: the function over a list of items; pickled once for the whole map."""

    def __init__(self, function: Callable[..., Any], starred: bool) -> None:
        self._function = function
        self._starred = starred
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)

    def __reduce__(self) -> Any:
        return _Chunk, (self._function, self._starred)

    def __call__(self, items: list[Any], *alone: Any) -> tuple[list[Any], bytes | None]:
        """The results up to the first failure, and that. ``alone`` is one call's arguments instead."""
        if alone:
            items = [alone if self._starred else alone[0]]
        function = self._function
        results: list[Any] = []
        try:
            if self._starred:
                for arguments in items:
                    results.append(function(*arguments))  # noqa: PERF401  what there is before a failure counts
            else:
                for argument in items:
                    results.append(function(argument))  # noqa: PERF401
        except Exception as error:
            from abi.context import host
            from abi.failure import failure_of

            return results, encode_failure(failure_of(error, host, self.__name__))
        return results, None


@overload
def map(
    fn: RemoteFunction[Callable[[A], T]] | Callable[[A], T],
    a: Iterable[A],
    /,
    *,
    timeout: float | None = None,
    chunk: int | None = None,
) -> Iterator[T]: ...
@overload
def map(
    fn: RemoteFunction[Callable[[A, B], T]] | Callable[[A, B], T],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    timeout: float | None = None,
    chunk: int | None = None,
) -> Iterator[T]: ...
@overload
def map(
    fn: RemoteFunction[Callable[[A, B, C], T]] | Callable[[A, B, C], T],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    timeout: float | None = None,
    chunk: int | None = None,
) -> Iterator[T]: ...
@overload
def map(
    fn: RemoteFunction[Callable[..., T]] | Callable[..., T],
    /,
    *iterables: Iterable[Any],
    timeout: float | None = None,
    chunk: int | None = None,
) -> Iterator[T]: ...
def map(fn: Any, /, *iterables: Iterable[Any], timeout: float | None = None, chunk: int | None = None) -> Iterator[Any]:
    """``fn`` over the items of the iterables, like the built-in ``map`` (the shortest ends it); results in order.

    ``timeout`` in seconds for the whole map, else GetTimeoutError; ``chunk`` items to a task instead of what is
    learned. A failure is raised at its item's place. An item that is a Ref stands for its value. Work starts with the
    first result asked for. Raises TypeError and ValueError at once for wrong arguments.
    """
    if len(iterables) == 0:
        raise TypeError("map takes at least one iterable")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, and is {chunk}")
    if isinstance(fn, RemoteFunction) and fn.settings.get("retry_exceptions"):
        raise ValueError("map runs many items in one task, so it cannot retry one: call .remote() for each instead")
    function: RemoteFunction[Any]
    if isinstance(fn, RemoteFunction):
        function = fn
    else:  # a class is as good a function as any here: map(int, lines)
        function = RemoteFunction(fn, {}) if isinstance(fn, type) else remote(fn)
    # One iterable's items travel bare: a list of numbers pickles five times faster than one of tuples of a number.
    starred = len(iterables) > 1
    items = zip(*iterables, strict=False) if starred else iter(iterables[0])
    return _Map(function, items, starred, timeout, chunk).results()


class _Map:
    def __init__(
        self,
        function: RemoteFunction[Any],
        items: Iterator[Any],
        starred: bool,
        timeout: float | None,
        chunk: int | None,
    ) -> None:
        self._items = items
        self._deadline = None if timeout is None else monotonic() + timeout
        self._timeout = timeout
        self._chunk = chunk
        self._size = chunk or 1
        self._starred = starred
        self._submit = _chunked(function, starred)
        self._under_way: deque[tuple[Ref[Any], int]] = deque()

    def results(self) -> Iterator[Any]:
        session = current()
        self._window = self._window_least = max(2, WINDOW_PER_CPU * max(1, session.cpus // UNITS))
        self._fill()
        try:
            while self._under_way:
                ref, count = self._under_way[0]
                values, failure = self._get(ref)
                self._under_way.popleft()
                self._learn(ref, count)
                self._fill()
                yield from values
                if failure is not None:
                    assert ref.end is not None
                    raise error_of(End(ref.seq, EndKind.ERROR, failure, ref.end.attempt), session.prefix) from None
        finally:
            for ref, _count in self._under_way:
                session.cancel(ref, force=False, recursive=True)

    def _fill(self) -> None:
        while len(self._under_way) < self._window:
            items = list(islice(self._items, self._size))
            if not items:
                return
            if self._has_refs(items):
                for item in items:
                    self._under_way.append((self._submit([], *(item if self._starred else (item,))), 1))
            else:
                self._under_way.append((self._submit(items), len(items)))

    def _has_refs(self, items: list[Any]) -> bool:
        """Whether some stand for the values of tasks: such go one by one, as each waits for its own."""
        kinds = {type(value) for item in items for value in item} if self._starred else set(builtins.map(type, items))
        return any(issubclass(kind, Ref) for kind in kinds)

    def _learn(self, ref: Ref[Any], count: int) -> None:
        if ref.end is None:
            return
        worth = CHUNK_NS // max(1, ref.end.ran_ns)
        self._window = max(self._window_least, min(self._window_least * worth, WINDOW_MAX, self._window * 2))
        if self._chunk is not None:
            return
        each = max(1, ref.end.ran_ns // count)
        self._size = max(1, min(CHUNK_NS // each, self._size * GROWTH_MAX, CHUNK_ITEMS_MAX))

    def _get(self, ref: Ref[Any]) -> Any:
        from abi.calls import get

        left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        try:
            return get(ref, timeout=left)
        except GetTimeoutError:
            if ref.end is not None:
                raise  # the function's own
            raise GetTimeoutError(f"map had not ended after {self._timeout} s") from None


def _chunked(function: RemoteFunction[Any], starred: bool) -> Callable[..., Ref[Any]]:
    """A submitter of chunks with the function's own options."""
    inner = function.__abi_function__
    code = getattr(inner, "__code__", None)
    if code is not None and code.co_flags & 0x80:  # CO_COROUTINE: the worker is to await it
        inner = _Awaited(inner)
    options = {key: value for key, value in function.settings.items() if key != "num_returns"}
    options.setdefault("name", getattr(function.__abi_function__, "__name__", "map"))
    chunks: RemoteFunction[Any] = RemoteFunction(_Chunk(inner, starred), options)
    return chunks.remote


class _Awaited:
    """A coroutine function called item by item, in a loop of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = function.__name__

    def __call__(self, *args: Any) -> Any:
        import asyncio

        return asyncio.run(self._function(*args))
