"""`abi.network`, without a cluster: the breaker and retries as programs use them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from abi import network
from abi.errors import AbiError, Busy, CircuitOpen, NodeUnreachable, PayloadError, Timeout

MS = 1_000_000


class Clock:
    """Time that goes on when it is told to, or slept through."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(error: BaseException | None = None) -> None:
    raise error or OSError("no route")


def opened(clock: Clock, **options: object) -> network.CircuitBreaker:
    breaker = network.CircuitBreaker(clock=clock, **options)  # type: ignore[arg-type]
    for _ in range(5):
        with pytest.raises(OSError, match="no route"):
            breaker.call(fail)
    return breaker


def test_a_call_passes_arguments_and_result() -> None:
    breaker = network.CircuitBreaker()
    assert breaker.call(int, "ff", base=16) == 255
    assert breaker.state == "closed"
    assert repr(breaker) == "<CircuitBreaker closed>"


def test_open_says_when_to_come_back_and_calls_nothing(clock: Clock) -> None:
    calls: list[int] = []
    breaker = opened(clock)
    clock.now_ns += 29_500 * MS + 1
    with pytest.raises(CircuitOpen, match="the circuit breaker is open") as caught:
        breaker.call(calls.append, 1)
    assert (calls, caught.value.retry_after_ms) == ([], 500)
    assert isinstance(caught.value, AbiError)


def test_an_exception_that_is_an_answer_is_a_success(clock: Clock) -> None:
    breaker = network.CircuitBreaker(failures=(OSError, TimeoutError), clock=clock)
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(OSError, match="no route"):
                breaker.call(fail)
        with pytest.raises(KeyError):
            breaker.call(fail, KeyError("not found"))
    assert breaker.state == "closed"


def test_what_ends_only_the_caller_counts_as_nothing(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now_ns += 30_000 * MS
    for _ in range(10):  # each gives its place back
        with pytest.raises(KeyboardInterrupt):
            breaker.call(fail, KeyboardInterrupt())
    assert breaker.state == "half-open"
    for _ in range(3):
        breaker.call(int)
    assert breaker.state == "closed"


def test_any_kind_of_exception_may_be_named_a_failure(clock: Clock) -> None:
    breaker = network.CircuitBreaker(1, failures=SystemExit, clock=clock)
    with pytest.raises(SystemExit):
        breaker.call(fail, SystemExit())
    assert breaker.state == "open"


def test_a_coroutine_function_is_refused_by_call(clock: Clock) -> None:
    breaker = network.CircuitBreaker(1, clock=clock)

    async def answer() -> int:
        return 1

    with pytest.raises(TypeError, match="call_async"):
        _ = breaker.call(answer)
    assert breaker.state == "closed"


def test_the_async_form_counts_alike(clock: Clock) -> None:
    async def story() -> None:
        breaker = network.CircuitBreaker(clock=clock)

        async def answer(word: str, *, error: BaseException | None = None) -> str:
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return word

        assert await breaker.call_async(answer, "yes") == "yes"
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await breaker.call_async(answer, "", error=TimeoutError())
        with pytest.raises(CircuitOpen):
            await breaker.call_async(answer, "yes")
        clock.now_ns += 30_000 * MS
        probes = [asyncio.ensure_future(breaker.call_async(answer, "yes")) for _ in range(8)]
        done = await asyncio.gather(*probes, return_exceptions=True)
        assert [each for each in done if each == "yes"] == ["yes"] * 3
        assert sum(isinstance(each, CircuitOpen) for each in done) == 5
        assert breaker.state == "closed"

    asyncio.run(story())


def test_a_cancelled_probe_gives_its_place_back(clock: Clock) -> None:
    async def story() -> None:
        breaker = opened(clock)
        clock.now_ns += 30_000 * MS
        begun = asyncio.Semaphore(0)

        async def hang() -> None:
            begun.release()
            await asyncio.Event().wait()

        probes = [asyncio.ensure_future(breaker.call_async(hang)) for _ in range(3)]
        for _ in probes:
            await begun.acquire()
        with pytest.raises(CircuitOpen):
            breaker.call(int)
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for _ in range(3):
            breaker.call(int)
        assert breaker.state == "closed"

    asyncio.run(story())


def test_threads_share_one_breaker(clock: Clock) -> None:
    """Eight threads, of which exactly three get through to probe, however they meet."""
    for _ in range(50):
        breaker = opened(clock)
        clock.now_ns += 30_000 * MS
        before, after = threading.Barrier(8), threading.Barrier(8)

        def probe(
            breaker: network.CircuitBreaker = breaker,
            before: threading.Barrier = before,
            after: threading.Barrier = after,
        ) -> str:
            before.wait(30)
            try:
                breaker.call(after.wait, 30)  # no probe ends before everybody has asked
            except CircuitOpen:
                after.wait(30)
                return "refused"
            return "called"

        with ThreadPoolExecutor(8) as pool:
            ends = [future.result() for future in [pool.submit(probe) for _ in range(8)]]
        assert sorted(ends) == ["called"] * 3 + ["refused"] * 5
        assert breaker.state == "closed"


class Guarded:
    """A rule that nobody may touch without the lock."""

    def __init__(self, rule: object, lock: threading.Lock) -> None:
        self._rule = rule
        self._lock = lock
        self.touched: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., object]:
        def touch(*arguments: object) -> object:
            assert self._lock.locked()
            self.touched.append(name)
            return getattr(self._rule, name)(*arguments)

        return touch


def test_the_rule_is_touched_under_the_lock_only(clock: Clock) -> None:
    breaker = network.CircuitBreaker(1, clock=clock)
    breaker._rule = guarded = Guarded(breaker._rule, breaker._lock)  # type: ignore[assignment]
    breaker.call(int)
    for error in (KeyboardInterrupt(), OSError("no route")):
        with pytest.raises(type(error)):
            breaker.call(fail, error)
    assert guarded.touched == ["admit", "succeeded", "admit", "abandoned", "admit", "failed"]


@pytest.mark.parametrize("wrong", [{"failure_threshold": 0}, {"reset_timeout_ms": 0}, {"half_open_max_calls": 0}])
def test_limits_below_one(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        network.CircuitBreaker(**wrong)  # type: ignore[arg-type]


# Retries.


def failing(times: int, error: BaseException) -> Callable[[], int]:
    """A function that fails so often and then tells how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error
        return calls

    return call


def test_a_retry_waits_at_random_up_to_doubling_ceilings(clock: Clock) -> None:
    drawn = set()
    for _ in range(20):
        clock.slept.clear()
        assert network.Retry(clock=clock, sleep=clock.sleep).call(failing(3, NodeUnreachable())) == 4
        assert len(clock.slept) == 3
        assert all(0 <= slept < ceiling for slept, ceiling in zip(clock.slept, (0.1, 0.2, 0.4), strict=True))
        drawn.update(clock.slept)
    assert len(drawn) == 60


def test_the_last_error_is_raised_when_the_retries_are_used_up(clock: Clock) -> None:
    call = failing(4, Timeout("no answer"))
    with pytest.raises(Timeout, match="no answer"):
        network.Retry(3, clock=clock, sleep=clock.sleep).call(call)
    assert (len(clock.slept), call()) == (3, 5)


def test_the_budget_ends_it_though_retries_are_left(clock: Clock) -> None:
    def slow() -> None:
        clock.now_ns += 400 * MS
        raise Timeout

    with pytest.raises(Timeout):
        network.Retry(100, base_ms=0, budget_ms=1000, clock=clock, sleep=clock.sleep).call(slow)
    assert len(clock.slept) == 2  # begun at 0, 400 and 800 ms


def test_a_final_error_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(PayloadError):
        network.Retry(clock=clock, sleep=clock.sleep).call(failing(1, PayloadError()))
    assert clock.slept == []


def test_busy_waits_as_long_as_it_was_told(clock: Clock) -> None:
    network.Retry(clock=clock, sleep=clock.sleep).call(failing(1, Busy(retry_after_ms=2000)))
    (slept,) = clock.slept
    assert 2.0 <= slept < 2.1


def test_what_is_retryable_may_be_chosen(clock: Clock) -> None:
    retry = network.Retry(retryable=lambda error: isinstance(error, KeyError), clock=clock, sleep=clock.sleep)
    assert retry.call(failing(2, KeyError())) == 3
    with pytest.raises(Timeout):
        retry.call(failing(1, Timeout()))


def test_the_async_form_of_a_retry() -> None:
    async def story() -> None:
        retry, call = network.Retry(3, base_ms=0), failing(3, NodeUnreachable())

        async def ask() -> int:
            return call()

        assert await retry.call_async(ask) == 4
        call = failing(4, NodeUnreachable())
        with pytest.raises(NodeUnreachable):
            await retry.call_async(ask)

    asyncio.run(story())


# Tasks as bytes, in the two forms.


def test_the_forms_of_serialize_task() -> None:
    item = network.WorkItem(priority="high")
    assert network.deserialize_task(network.serialize_task(item, "t", b"d")) == network.TaskData("t", b"d", item)
    data = network.serialize_task(network.TaskData("t", b"d"))
    assert data == network.serialize_task({"payload_type": "t", "user_data": b"d"})
    assert data == network.serialize_task(network.WorkItem(), "t", b"d")
    assert data == network.serialize_task(network.WorkItem(), payload_type="t", user_data=b"d")
    assert network.deserialize_task(network.serialize_task(b"d")) == network.TaskData("", b"d")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((network.WorkItem(),), "needs its payload_type and user_data"),
        ((b"d", "t", b"d"), "the first is bytes"),
        (("text",), "or bytes, not str"),
        ((None,), "or bytes, not NoneType"),
        (({"payload_type": "t"},), "needs payload_type and user_data"),
        (({"payload_type": "t", "user_data": b"", "more": 1},), "no field 'more'"),
        (({"payload_type": "t", "user_data": "text"},), "user_data is bytes"),
    ],
)
def test_what_is_no_task(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        network.serialize_task(*arguments)  # type: ignore[call-overload]
