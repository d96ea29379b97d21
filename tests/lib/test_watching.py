"""Who awaits a task is told of its end, whatever comes in between; and who no longer does is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import abi
import abi.aio
from abi import errors
from abi.ref import Ref
from abi.session import Session
from abi.watching import Watch
from abi.wire.schema import End, EndKind, Kind, Task
from tests.lib.conftest import Connected
from tests.lib.fake_daemon import FakeDaemon


@abi.remote
def nothing() -> None: ...


def never(_daemon: FakeDaemon, _task: Task) -> list[End]:
    return []


class Meddling(dict[int, dict[int, Watch]]):
    """``by_seq`` where something happens between the two steps of adding a watch."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    def setdefault(self, key: int, default: Any = None) -> Any:
        found = super().setdefault(key, default)
        self._meanwhile()
        return found


def end(session: Session, *refs: Ref[Any]) -> None:
    """As the thread that receives does with one frame."""
    session._on_ends([End(ref.seq, EndKind.OK) for ref in refs], [])
    session.watchers.deliver()


def test_an_end_between_two_steps_of_watching(connect: Callable[..., Connected]) -> None:
    session = connect(never).session
    ref = nothing.remote()
    told: list[Ref[Any]] = []
    session.watchers.by_seq = Meddling(lambda: end(session, ref))
    session.watch(ref, told.append)
    assert told == [ref]
    assert len(session.watchers) == 0


def test_an_end_that_others_watch_between_two_steps_of_watching(connect: Callable[..., Connected]) -> None:
    session = connect(never).session
    ref = nothing.remote()
    first: list[Ref[Any]] = []
    second: list[Ref[Any]] = []
    session.watch(ref, first.append)
    known, session.watchers.by_seq = session.watchers.by_seq, Meddling(lambda: end(session, ref))
    session.watchers.by_seq.update(known)
    session.watch(ref, second.append)
    assert (first, second) == ([ref], [ref])


def test_a_watch_that_comes_in_the_middle_of_a_frame(connect: Callable[..., Connected]) -> None:
    session = connect(never).session
    first, second = nothing.remote(), nothing.remote()
    told: list[Ref[Any]] = []

    def frame() -> Iterator[End]:
        yield End(first.seq, EndKind.OK)
        session.watch(second, told.append)  # as another thread may
        yield End(second.seq, EndKind.OK)

    session._on_ends(frame(), [])  # type: ignore[arg-type]
    session.watchers.deliver()
    assert told == [second]


def test_each_watch_of_one_task_is_called_once(connect: Callable[..., Connected]) -> None:
    session = connect(never).session
    ref = nothing.remote()
    told: list[Ref[Any]] = []
    for _ in range(3):
        session.watch(ref, told.append)
    session.unwatch(session.watch(ref, told.append))
    end(session, ref)
    end(session, ref)
    session.watch(ref, told.append)
    assert told == [ref] * 4


def test_cancelled_awaits_are_forgotten(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    ref = nothing.remote()

    async def wait() -> None:
        await ref

    async def main() -> None:
        for _ in range(50):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert len(connected.session.watchers) == 1
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert len(connected.session.watchers) == 0
        last = asyncio.create_task(wait())  # and whoever waits on is told all the same
        await asyncio.sleep(0)
        connected.daemon.say(Kind.END, End(ref.seq, EndKind.OK))
        await asyncio.wait_for(last, 10)

    asyncio.run(main())


def test_what_fails_first_forgets_the_others(connect: Callable[..., Connected]) -> None:
    connected = connect(never)
    refs = [nothing.remote() for _ in range(10)]

    async def main() -> None:
        waiting = asyncio.ensure_future(abi.aio.results_of(refs))
        await asyncio.sleep(0)
        assert len(connected.session.watchers) == 10
        connected.daemon.say(Kind.END, End(refs[3].seq, EndKind.CANCELLED))
        with pytest.raises(errors.TaskCancelledError):
            await asyncio.wait_for(waiting, 10)

    asyncio.run(main())
    assert len(connected.session.watchers) == 0


def test_awaiting_in_a_session_that_has_ended(connect: Callable[..., Connected]) -> None:
    session = connect(never).session
    ref = nothing.remote()
    record = session.pending.pop(ref.seq)  # 1. a thread is about to note it. 2. the session ends all it knows of
    session.end_all("the daemon is gone")
    session.pending[ref.seq] = record
    with pytest.raises(errors.SessionLost, match="the daemon is gone"):
        session.watch(ref, lambda _ref: None)
    assert len(session.watchers) == 0
