"""KeyboardInterrupt reaches the call it is meant for, in its own code, and nothing else. With real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from abi.objects.slot_page import INTERRUPT_SIGNAL, SlotPage
from abi.wire.codec import decode_failure
from abi.wire.schema import Kind, Run
from abi_worker import interrupt
from abi_worker.coroutines import Coroutines
from abi_worker.interrupt import Interrupts, call_builtin
from tests.worker.zygote_harness import Process


@pytest.fixture
def page() -> Iterator[SlotPage]:
    page, fd = SlotPage.create()
    os.close(fd)
    before = signal.getsignal(signal.SIGINT)
    yield page
    signal.signal(INTERRUPT_SIGNAL, signal.SIG_IGN)
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupts(page: SlotPage) -> Interrupts:
    interrupts = Interrupts(page.words)
    page.running = 5
    interrupts.inside = True
    return interrupts


def strike() -> None:
    """The signal; Python runs its handler before this returns, or in its caller."""
    signal.raise_signal(INTERRUPT_SIGNAL)


def test_it_is_raised_in_user_code(interrupts: Interrupts, page: SlotPage) -> None:
    page.interrupt = 5
    with pytest.raises(KeyboardInterrupt):
        strike()
    assert page.interrupted == 5


@pytest.mark.parametrize("meant_for", [0, 4, 6])
def test_never_in_another_call(interrupts: Interrupts, page: SlotPage, meant_for: int) -> None:
    page.interrupt = meant_for
    strike()
    page.running, page.interrupt = 0, 0
    strike()
    assert page.interrupted == 0


def test_never_outside_of_user_code(interrupts: Interrupts, page: SlotPage) -> None:
    page.interrupt = 5
    interrupts.inside = False
    strike()


def test_never_in_a_frame_of_the_loop(interrupts: Interrupts, page: SlotPage, monkeypatch: pytest.MonkeyPatch) -> None:
    page.interrupt = 5
    monkeypatch.setattr(interrupt, "OURS", {strike.__code__})
    strike()
    assert page.interrupted == 0, "it is repeated by the daemon"


def test_behind_a_mask_it_waits_for_the_end_of_the_section(interrupts: Interrupts, page: SlotPage) -> None:
    page.interrupt = 5
    interrupts.enter()
    interrupts.enter()
    strike()
    interrupts.leave()
    with pytest.raises(KeyboardInterrupt):
        interrupts.leave()
    interrupts.enter()
    interrupts.leave()


def test_a_pause_lets_it_in_and_its_section_still_ends(interrupts: Interrupts, page: SlotPage) -> None:
    page.interrupt = 5
    interrupts.enter()
    interrupts.pause()
    with pytest.raises(KeyboardInterrupt):
        strike()
    interrupts.leave()
    interrupts.enter()
    strike()
    with pytest.raises(KeyboardInterrupt):
        interrupts.pause()
    interrupts.leave()


def test_one_that_was_noted_does_not_meet_the_next_call(interrupts: Interrupts, page: SlotPage) -> None:
    page.interrupt = 5
    interrupts.enter()
    strike()
    page.running = 6
    interrupts.leave()


def test_a_builtin_has_a_frame_of_its_own(interrupts: Interrupts) -> None:
    assert call_builtin(strike) is strike
    assert call_builtin(len)("four") == 4
    assert hasattr(call_builtin(len), "__code__")


def test_a_coroutine_is_cancelled_and_may_clean_up(interrupts: Interrupts, page: SlotPage) -> None:
    cleaned = []

    async def sleep() -> None:
        asyncio.get_running_loop().call_later(0.001, strike)
        asyncio.get_running_loop().call_later(0.002, strike)
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    page.interrupt = 5
    with pytest.raises(KeyboardInterrupt):
        Coroutines(interrupts).run(sleep())
    assert cleaned
    assert page.interrupted == 5


def test_a_coroutine_that_does_not_await_is_interrupted_by_the_second(interrupts: Interrupts, page: SlotPage) -> None:
    async def block() -> None:
        strike()
        strike()
        raise AssertionError("it goes on")

    page.interrupt = 5
    coroutines = Coroutines(interrupts)
    with pytest.raises(KeyboardInterrupt):
        coroutines.run(block())
    assert coroutines.run(asyncio.sleep(0, "the next one works")) == "the next one works"


# --- in a real worker -------------------------------------------------------------------------------------------------


def sleep_in_get() -> None:
    from abi import session

    session.current().wait(lambda: False, None)


def await_start(worker: Process, number: int) -> None:
    while worker.page.running != number:
        os.sched_yield()


def interrupt_until_taken(worker: Process, number: int) -> str:
    """As the daemon does it: a signal that meets our own code does nothing, so it is repeated."""
    while worker.page.interrupted != number:
        worker.interrupt(number)
        worker.side.pump(0.01)
    return decode_failure(worker.end_of(number).payload).type_name


@pytest.mark.parametrize("function", [time.sleep, sleep_in_get], ids=["sleep", "a nested get"])
def test_what_blocks_is_interrupted(worker: Process, function: object) -> None:
    worker.define(1, function)  # type: ignore[arg-type]
    number = worker.call(1, 1000) if function is time.sleep else worker.call(1)
    await_start(worker, number)
    assert interrupt_until_taken(worker, number) == "KeyboardInterrupt"
    assert worker.run(abs, -3) == 3


def test_a_storm_of_late_interrupts_hurts_nobody(worker: Process) -> None:
    """Signals for a call that is over arrive while thousands of others run, most of them in our own code."""
    worker.define(1, abs)
    first = worker.call(1, -1)
    worker.value_of(first)
    worker.page.interrupt = first
    numbers = [worker.reserve() for _ in range(5000)]
    worker.side.send(Kind.RUN, Run(0, [worker.make_call(number, 1, (-number,)) for number in numbers]))
    ends = 0
    while ends < len(numbers):
        worker.interrupt(first)
        worker.side.pump(0)
        ends = sum(kind == Kind.RESULT for kind, _, _ in worker.side.inbox)
    assert all(item.kind == 0 for kind, item, _ in worker.side.inbox if kind == Kind.RESULT)


def test_an_idle_worker_is_not_moved(worker: Process) -> None:
    worker.run(abs, 1)
    for _ in range(100):
        worker.interrupt(1)
        worker.kill(signal.SIGINT)
    assert worker.run(abs, -2) == 2
