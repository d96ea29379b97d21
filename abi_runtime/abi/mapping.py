"""``abi.map``: one function over many items, many items to a task, results in order.

Lazy on its input and bounded in what is under way. A chunk is as many items as take ``CHUNK_NS`` by what the chunks
before it took: so small functions cost a fraction of a task each, and long ones go one by one and spread.

Input is read while the next result is not there. Reading it may block, and nothing can be yielded meanwhile; so from an
input that was slow the last time it first looks for what has come in, and a chunk is what could be read in ``READ_S``.
"""

# ruff: noqa: A001 — `abi.map` is the built-in `map`, elsewhere
from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import floor
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

READ_S: Final = 0.005
"""A chunk that takes longer to read is submitted as it is: half of what it is to run, and far above what a task
costs."""
AT_ONCE: Final = frozenset({list, tuple, range, str, bytes, bytearray, dict, set, frozenset})
"""Reading these never blocks: neither the clock nor the next result is looked at between their items."""


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

    ``timeout`` in seconds for the whole map, else GetTimeoutError; ``chunk`` items to a task, where the input is not
    slow, instead of what is learned. A failure is raised at its item's place. An item that is a Ref stands for its
    value. Work starts with the first result asked for. Raises TypeError and ValueError at once for wrong arguments.

    The input may be slow or endless. It is read ahead, in the caller's thread: some chunks per processor, and while
    the next result is not there. What is known to be ready is yielded before more is read, and 5 ms after a chunk
    began what there is of it is submitted. ``timeout`` is looked at between items: an input that blocks is not
    interrupted, and results wait until it goes on. So it must not wait for a result of this same map, as with
    ``concurrent.futures``; what feeds results back into its input is a loop around ``remote`` and ``wait``.
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
    blocks = not AT_ONCE.issuperset(builtins.map(type, iterables))
    return _Map(function, items, blocks, starred, timeout, chunk).results()


class _Map:
    def __init__(
        self,
        function: RemoteFunction[Any],
        items: Iterator[Any],
        blocks: bool,
        starred: bool,
        timeout: float | None,
        chunk: int | None,
    ) -> None:
        self._items = items
        self._is_over = False
        """Whether ``items`` are; a ``zip`` that has ended would read on in its first iterable."""
        self._blocks = blocks
        """Whether reading ``items`` may."""
        self._patience: float | None = None
        """Seconds to wait for the next result before more is read; None: the input is not slow."""
        self._deadline = None if timeout is None else monotonic() + timeout
        self._timeout = timeout
        self._chunk = chunk
        self._size = chunk or 1
        self._starred = starred
        self._submit = _chunked(function, starred)
        self._under_way: deque[tuple[Ref[Any], int]] = deque()

    def results(self) -> Iterator[Any]:
        session = self._session = current()
        self._window = self._window_least = max(2, WINDOW_PER_CPU * max(1, session.cpus // UNITS))
        try:
            self._fill()
            while self._under_way:
                ref, count = self._under_way[0]
                values, failure = self._get(ref)
                self._under_way.popleft()
                self._learn(ref, count)
                yield from values
                if failure is not None:
                    assert ref.end is not None
                    raise error_of(End(ref.seq, EndKind.ERROR, failure, ref.end.attempt), session.prefix) from None
                self._fill()
        finally:
            for ref, _count in self._under_way:
                session.cancel(ref, force=False, recursive=True)

    def _fill(self) -> None:
        """Read and submit until the window is full or, where reading may block, the next result is there."""
        while not self._is_over and len(self._under_way) < self._window:
            if self._blocks and self._under_way:
                if self._is_next_ready():
                    return
                if self._left() == 0:
                    raise self._too_late()
            items = self._read_slowly() if self._blocks else self._read_at_once()
            if not items:
                return
            if self._has_refs(items):
                for item in items:
                    self._under_way.append((self._submit([], *(item if self._starred else (item,))), 1))
            else:
                self._under_way.append((self._submit(items), len(items)))

    def _is_next_ready(self) -> bool:
        """As far as is known already; if the input is slow, it is looked for, and waited for if that costs little."""
        ref = self._under_way[0][0]
        if ref.end is None and self._patience is not None:
            left = self._left()
            patience = self._patience if left is None else min(self._patience, left)
            self._session.wait(lambda: ref.end is not None, patience)
        return ref.end is not None

    def _read_at_once(self) -> list[Any]:
        items = list(islice(self._items, self._size))
        self._is_over = len(items) < self._size
        return items

    def _read_slowly(self) -> list[Any]:
        """A chunk, or what there is of it after READ_S. Raises GetTimeoutError if an item came too late."""
        items: list[Any] = []
        began = now = monotonic()
        end = began + READ_S if self._deadline is None else min(began + READ_S, self._deadline)
        for item in islice(self._items, self._size):
            items.append(item)
            now = monotonic()
            if now > end:
                break
        else:
            self._is_over = len(items) < self._size
        if items and self._deadline is not None and now > self._deadline:
            raise self._too_late()
        # Waiting is in whole milliseconds. A tenth of the time that reading took anyway is no loss to speak of.
        self._patience = floor((now - began) * 100) / 1000 if now > end else None
        return items

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

        try:
            return get(ref, timeout=self._left())
        except GetTimeoutError:
            if ref.end is not None:
                raise  # the function's own
            raise self._too_late() from None

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def _too_late(self) -> GetTimeoutError:
        return GetTimeoutError(f"map had not ended after {self._timeout} s")


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
