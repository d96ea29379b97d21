"""References and event loops. The helper thread receives; loops are told through ``call_soon_threadsafe``, batch by
batch."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from abi.ref import Ref
from abi.session import Session, of
from abi.watching import Watch

T = TypeVar("T")


async def result_of(ref: Ref[T]) -> T:
    """The value of ``ref``, without blocking the running loop (asyncio or another that makes its futures alike)."""
    if ref.end is None:
        await _ended([ref])
    return _value(ref)  # type: ignore[no-any-return]


async def results_of(refs: Sequence[Ref[T]]) -> list[T]:
    """All values in order; the first failure at once, without waiting for the rest."""
    waiting = [ref for ref in refs if ref.end is None]
    if waiting and not _failed(refs):
        await _ended(waiting)
    failed = _failed(refs)
    if failed is not None:
        _value(failed)
    return [_value(ref) for ref in refs]


def future_of(ref: Ref[T]) -> Future[T]:
    """A ``concurrent.futures.Future`` that is running from the start."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def settle(ended: Ref[T]) -> None:
        try:
            value = _value(ended)
        except BaseException as error:
            future.set_exception(BaseException.with_traceback(error, None))
        else:
            future.set_result(value)

    if ref.end is not None:
        settle(ref)
    else:
        of(ref).watch(ref, lambda ended: _aside(settle, ended))
    return future


_waiting: SimpleQueue[tuple[Callable[[Any], None], Any]] = SimpleQueue()
_thread: threading.Thread | None = None
_starting = threading.Lock()


def _aside(settle: Callable[[Any], None], ended: Any) -> None:
    """Have ``settle(ended)`` called in a thread beside: a future's callbacks are the user's, and may take as long as
    they like and wait for other results. Whoever receives must not: all others' results come through it."""
    global _thread
    _waiting.put((settle, ended))
    if _thread is None:
        with _starting:
            if _thread is None:
                _thread = threading.Thread(target=_settle_all, name="abi futures", daemon=True)
                _thread.start()


def _settle_all() -> None:
    while True:
        settle, ended = _waiting.get()
        settle(ended)
        del settle, ended  # the queue is often empty for long


def _after_fork() -> None:
    """The child has neither the thread nor the ends that it was to tell."""
    global _waiting, _thread, _starting
    _waiting, _thread, _starting = SimpleQueue(), None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


async def _ended(refs: list[Ref[Any]]) -> None:
    """Until all have ended or one has failed."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    ended: list[Ref[Any]] = []  # appended to by several threads: whoever makes it full, or finds a failure, tells

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def on_end(ref: Ref[Any]) -> None:
        ended.append(ref)
        end = ref.end
        if len(ended) >= len(refs) or (end is not None and end.kind):
            _tell(loop.call_soon_threadsafe, settle)

    session: Session = of(refs[0])
    hooks = session.hooks
    watches: list[Watch] = []
    try:
        watches.extend(session.watch(ref, on_end) for ref in refs)
        if hooks is None:
            await future
            return
        hooks.blocked()
        try:
            await future
        finally:
            hooks.unblocked()
    finally:
        if len(ended) < len(refs):  # it was cancelled, or one failed: a task may run for days, and be awaited often
            for watch in watches:
                session.unwatch(watch)


def _tell(call_soon: Callable[..., Any], settle: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed while the task ran
        call_soon(settle)


def _failed(refs: Sequence[Ref[Any]]) -> Ref[Any] | None:
    return next((ref for ref in refs if (end := ref.end) is not None and end.kind), None)


def _value(ref: Ref[Any]) -> Any:
    end = ref.end
    assert end is not None
    return Session.value_of(ref, end)
