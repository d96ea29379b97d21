"""The network as a program sees it: the nodes, tasks as bytes, and care with those who may not answer.

    from abi import network

    network.NodeRegistry().get_active_nodes()
    data = network.serialize_task(network.WorkItem(priority="high"), "matrix_multiply", matrices)
    network.deserialize_task(data).payload_type
    network.CircuitBreaker().call(fetch, "https://inventory.example/hosts")

The daemon of this host is what discovers, connects and decides; a program asks it. So what is shown here is what the
`abi` command shows, and a program that ends takes no knowledge of the cluster with it.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar, overload

import msgspec

from abi import backoff, breaker, control
from abi.errors import (
    CircuitOpen,
    NetworkDisabled,
    NodeUnreachable,
    PayloadCorrupt,
    PayloadError,
    PayloadTooLarge,
    PayloadTooNew,
    PayloadTruncated,
    ProtocolError,
    Timeout,
)
from abi.work_item import Bytes, TaskData, WorkItem, deserialize, serialize, task_of

__all__ = [
    "CircuitBreaker",
    "CircuitOpen",
    "NetworkDisabled",
    "NodeInfo",
    "NodeRegistry",
    "NodeUnreachable",
    "PayloadCorrupt",
    "PayloadError",
    "PayloadTooLarge",
    "PayloadTooNew",
    "PayloadTruncated",
    "Retry",
    "TaskData",
    "Timeout",
    "WorkItem",
    "deserialize_task",
    "serialize_task",
]

P = ParamSpec("P")
R = TypeVar("R")
Kinds = type[BaseException] | tuple[type[BaseException], ...]

GONE: Final = frozenset({"dead", "left"})
"""States of nodes that are no longer active. One that is suspect still is: it may only be slow."""


# Tasks as bytes.


@overload
def serialize_task(data: TaskData | Mapping[str, object] | Bytes, /) -> bytes: ...
@overload
def serialize_task(work_item: WorkItem, payload_type: str, user_data: Bytes, /) -> bytes: ...
def serialize_task(
    data: WorkItem | TaskData | Mapping[str, object] | Bytes,
    payload_type: str | None = None,
    user_data: Bytes | None = None,
    /,
) -> bytes:
    """A task as bytes, to be read by `deserialize_task`; the same task gives the same bytes.

    Of one argument: a `TaskData`, a mapping with `payload_type`, `user_data` and maybe `work_item`, or plain bytes,
    which become the user data of a task without a type. Of three: a work item, the type of the payload and the payload.

    The payload is bytes, of 256 MiB at most (`PayloadTooLarge`), and travels untouched: nothing is pickled. Raises
    TypeError for what is no such task, ValueError for a type of more than 255 bytes.
    """
    if isinstance(data, WorkItem):
        if payload_type is None or user_data is None:
            raise TypeError("beside a work item a task needs its payload_type and user_data")
        return serialize(TaskData(payload_type, user_data, data))  # type: ignore[arg-type]  # made bytes there
    if payload_type is not None or user_data is not None:
        raise TypeError(f"the three are a WorkItem, a payload_type and user_data; the first is {type(data).__name__}")
    return serialize(task_of(data))


def deserialize_task(data: Bytes) -> TaskData:
    """The task in these bytes: `payload_type`, `user_data` exactly as they were, and `work_item`.

    Nothing is unpickled, and nothing else can be run by reading. Raises `PayloadCorrupt`, `PayloadTruncated`,
    `PayloadTooLarge` or `PayloadTooNew` (all `PayloadError`), and TypeError for what is not bytes.
    """
    return deserialize(data)


# Care with those who may not answer.


class CircuitBreaker:
    """Lets calls of something that fails pass only now and then: `abi.breaker` tells the rule.

    After `failure_threshold` failures in a row each call raises `CircuitOpen` at once, without being made. After
    `reset_timeout_ms` at most `half_open_max_calls` calls are let through; when all of them succeed the breaker closes,
    when one fails it is open again.

    `failures` says which exceptions are failures (by default every `Exception`); any other `Exception` shows that the
    callee answers, and counts as a success. What only ends the caller (KeyboardInterrupt, a cancelled task) counts as
    nothing, so a time limit belongs *inside* the function that is called.

    May be shared by threads and by the tasks of an event loop. Raises ValueError for a limit below 1.
    """

    def __init__(
        self,
        failure_threshold: int = breaker.FAILURE_THRESHOLD,
        reset_timeout_ms: int = breaker.RESET_TIMEOUT_NS // 1_000_000,
        half_open_max_calls: int = breaker.HALF_OPEN_MAX_CALLS,
        *,
        failures: Kinds = Exception,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._rule = breaker.Breaker(failure_threshold, reset_timeout_ms * 1_000_000, half_open_max_calls)
        self._failures = failures
        self._clock = clock
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state}>"

    @property
    def state(self) -> str:
        """ "closed", "open" or "half-open"."""
        return self._rule.name(self._clock())

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)`, if the breaker lets it pass. Raises `CircuitOpen`, what `fn` raises, and TypeError
        for a coroutine function: its failure comes later, see `call_async`."""
        with self._watched():
            result = fn(*args, **kwargs)
            if inspect.iscoroutine(result):
                result.close()
                raise _Misused("call() would not see how a coroutine ends: use `await breaker.call_async(fn, …)`")
            return result

    async def call_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)`, if the breaker lets it pass. Raises `CircuitOpen` and what `fn` raises."""
        with self._watched():
            return await fn(*args, **kwargs)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        permit = self._admitted()
        verdict = self._rule.abandoned  # whatever is no Exception ends the caller and says nothing of the callee
        try:
            yield
            verdict = self._rule.succeeded
        except BaseException as problem:
            if isinstance(problem, _Misused):
                raise
            if isinstance(problem, self._failures):
                verdict = self._failed
            elif isinstance(problem, Exception):
                verdict = self._rule.succeeded
            raise
        finally:
            with self._lock:
                verdict(permit)

    def _failed(self, permit: breaker.Permit) -> None:
        self._rule.failed(permit, self._clock())

    def _admitted(self) -> breaker.Permit:
        with self._lock:
            answer = self._rule.admit(self._clock())
        if isinstance(answer, breaker.Permit):
            return answer
        retry_after_ms = -(-answer.retry_after_ns // 1_000_000)
        raise CircuitOpen(
            f"the circuit breaker is {self.state}: the calls before this one failed",
            hint=f"try again after {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )


class _Misused(TypeError):
    """The breaker was used wrongly, which is no failure of the callee."""


class Retry:
    """Calls again what failed and may succeed: `abi.backoff` tells how long it waits between, and when it gives up.

    At most `max_retries` further tries, each after a random wait of up to `base_ms`, then twice that, and so on to
    `cap_ms`; none that would begin more than `budget_ms` after the first. Only errors for which `retryable` is true are
    tried again (`NodeUnreachable`, `Timeout`, `Busy`, ConnectionError, TimeoutError); the last one is raised. **What is
    called must be safe to do twice.**
    """

    def __init__(
        self,
        max_retries: int = backoff.MAX_RETRIES,
        *,
        base_ms: int = backoff.BASE_MS,
        cap_ms: int = backoff.CAP_MS,
        budget_ms: int = backoff.BUDGET_MS,
        retryable: Callable[[BaseException], bool] = backoff.is_retryable,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.policy = backoff.Backoff(max_retries, base_ms, cap_ms, budget_ms)
        self._retryable = retryable
        self._clock = clock
        self._sleep = sleep

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`fn(*args, **kwargs)`, again and again if need be. Raises what the last try raised."""
        tries = self._tries()
        while True:
            try:
                return fn(*args, **kwargs)
            except Exception as problem:
                wait_ns = tries.on_failure(problem, self._clock())
                if wait_ns is None:
                    raise
            self._sleep(wait_ns / 1e9)

    async def call_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`await fn(*args, **kwargs)`, likewise."""
        import asyncio

        tries = self._tries()
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception as problem:
                wait_ns = tries.on_failure(problem, self._clock())
                if wait_ns is None:
                    raise
            await asyncio.sleep(wait_ns / 1e9)

    def _tries(self) -> backoff.Tries:
        # Drawn anew for each call: threads need not share it, and a forked process does not repeat its parent's.
        return backoff.Tries(self.policy, backoff.Lots(os.urandom(16)), self._clock(), self._retryable)


# The nodes.


class NodeInfo(msgspec.Struct, frozen=True):
    """One node: its id, its host's name, what it has, where it is dialled, and how it is ("alive", "suspect", …)."""

    id: str
    cpu_cores: int
    has_gpu: bool
    name: str = ""
    address: str = ""
    state: str = "alive"


class _Status(msgspec.Struct, frozen=True):
    """What of the daemon's answer to `network-status` is looked at here."""

    enabled: bool
    port: int
    discovery_enabled: bool
    broadcast_interval_ms: int
    nodes: list[NodeInfo]


class NodeRegistry:
    """The nodes of the cluster, as the daemon of this host knows them.

    The daemon discovers, with its own configuration; this is a view of it. A value given here says what the caller
    counts on: where the running daemon's differs, ValueError names both. What is not given is taken as it is.

    Raises `DaemonUnreachable` if no daemon runs here, here and in each method.
    """

    def __init__(
        self,
        port: int | None = None,
        discovery_enabled: bool | None = None,
        broadcast_interval_ms: int | None = None,
    ) -> None:
        self._wanted: dict[str, int | bool | None] = {
            "port": port,
            "discovery_enabled": discovery_enabled,
            "broadcast_interval_ms": broadcast_interval_ms,
        }
        status = self._ask()
        self.port = status.port
        self.discovery_enabled = status.discovery_enabled
        self.broadcast_interval_ms = status.broadcast_interval_ms

    def __repr__(self) -> str:
        return (
            f"NodeRegistry(port={self.port}, discovery_enabled={self.discovery_enabled}, "
            f"broadcast_interval_ms={self.broadcast_interval_ms})"
        )

    def start_discovery(self) -> None:
        """See to it that discovery runs. The daemon has started it by itself, so this only makes sure.

        Raises `NetworkDisabled` if the daemon's network, or its discovery, is switched off.
        """
        status = self._ask()
        if not status.enabled:
            raise NetworkDisabled(
                "the network of the daemon on this host is switched off",
                hint="[network] enabled = true (or ABI_NETWORK_ENABLED=true), then start the daemon again",
            )
        if not status.discovery_enabled:
            raise NetworkDisabled(
                "discovery is switched off in the daemon on this host",
                hint="[network] discovery_enabled = true, or name the others: `abi network register --host HOST`",
            )

    def get_active_nodes(self) -> list[NodeInfo]:
        """The nodes that are there now, this host's among them; those that died or left are not. With the network
        switched off that is this host alone."""
        return [node for node in self._ask().nodes if node.state not in GONE]

    def _ask(self) -> _Status:
        with control.connect() as connection:
            answer = connection.request("network-status")
        try:
            status = msgspec.convert(answer, _Status)
        except msgspec.ValidationError as problem:
            raise ProtocolError(f"the daemon's answer to network-status cannot be read: {problem}") from None
        for name, wanted in self._wanted.items():
            has = getattr(status, name)
            if wanted is not None and wanted != has:
                raise ValueError(
                    f"{name}={wanted!r} was asked for, but the daemon on this host runs with {name}={has!r}; "
                    f"leave it out, or change network.{name} in the daemon's configuration"
                )
        return status
