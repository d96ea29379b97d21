"""Every exception that abi raises on purpose. Root: `AbiError`.

Each class has a `code`, the short word that stands for it on the wire and in `--json`
output (`{"error": {"code", "message", "hint"}}`), so that one table serves the library,
the control client and the command line. An exception pickles and loads again with all
its attributes: the constructor takes one positional argument, the rest is keyword-only
with defaults and lives in `__dict__`.

Standard library only: `abi status` imports this file.
"""

from __future__ import annotations

from collections.abc import Mapping


class AbiError(Exception):
    """Anything that abi itself reports. Catch it to catch them all.

    `code` is a stable short word, `message` one sentence, `hint` what to do next ("" if
    there is nothing to say).
    """

    code: str = "internal"

    def __init__(self, message: str = "", *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class ConfigError(AbiError):
    """A configuration key or value is wrong. The message names the key, where it was set
    and the nearest right one; correct it there (`abi config check` tests it)."""

    code = "bad_config"


class UsageError(AbiError):
    """A request or command was given arguments that make no sense. The message says which."""

    code = "usage"


class DaemonUnreachable(AbiError):
    """No daemon answers at any socket that applies. Start one with `abid start -d`, or
    point `ABI_SOCKET` or `ABI_RUNTIME_DIR` at the one that runs."""

    code = "unreachable"


class ProtocolError(AbiError):
    """The other side of a connection sent what this side cannot read. The connection is
    closed; if it happens again, one of the two is not abi or is broken."""

    code = "protocol"


class VersionMismatch(ProtocolError):
    """The daemon speaks a protocol that this version of abi does not (or the other way
    round). Upgrade the older of the two; the message names both versions."""

    code = "version"


class Denied(AbiError):
    """The operation is not allowed for this user, or a socket or directory belongs to
    somebody else. Nothing was done."""

    code = "denied"


class _NotNow(AbiError):
    """Says when to come again."""

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str = "",
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_ms = retry_after_ms


class Busy(_NotNow):
    """The daemon's queue is full. Nothing was accepted: try again after
    `retry_after_ms` milliseconds, or wait for some results first."""

    code = "busy"


class QueueFullError(Busy):
    """`.remote()` met a full queue and was asked not to block. Get some results and call
    again, or let it block (the default)."""


class NotFound(AbiError):
    """No task or job has this id, or it ended so long ago that it was forgotten."""

    code = "not_found"


class Ambiguous(AbiError):
    """An id was shortened so far that it fits more than one. Give more of its characters."""

    code = "ambiguous"


class Refused(AbiError):
    """The daemon understood the request and will not do it: it asks for what no host has,
    or for what is not built. The message says which; asking again changes nothing."""

    code = "refused"


class SessionLost(AbiError):
    """The connection to the daemon was lost and did not come back in time, or the daemon
    ended. Unfinished work of this program is cancelled there; call `abi.init()` again."""

    code = "session_lost"


class NetworkDisabled(AbiError):
    """The network is switched off (`[network] enabled = false`, or discovery alone), and what was asked needs it.
    Switch it on in the daemon's configuration and restart it, or stay on this host."""

    code = "network_disabled"

    def __init__(
        self,
        message: str = "the network of the daemon on this host is switched off",
        *,
        code: str | None = None,
        hint: str = "network.enabled = true (or ABI_NETWORK_ENABLED=true), then start the daemon again",
    ) -> None:
        super().__init__(message, code=code, hint=hint)


class NodeUnreachable(AbiError, ConnectionError):
    """A node could not be dialled within `connection_timeout_ms`, is known to be dead, or its circuit breaker is open.
    Nothing was started there: send the work to another node, or let the daemon choose one. Only where the message says
    that the connection ended before its answer may it have acted, as with `Timeout`."""

    code = "node_unreachable"


class Timeout(AbiError, TimeoutError):
    """A node took a request and did not answer within `request_timeout_ms`. It may have acted on it: ask again only
    what may be done twice."""

    code = "request_timed_out"


class CircuitOpen(_NotNow):
    """A circuit breaker refused a call at once, since those before it failed. Nothing was called: try again after
    `retry_after_ms` milliseconds, when it lets probes through."""

    code = "circuit_open"


class PayloadError(AbiError, ValueError):
    """Bytes that were to be a serialized task (`abi.network.serialize_task`) are none that can be read here."""

    code = "payload"


class PayloadCorrupt(PayloadError):
    """The bytes never were a serialized task, or were changed since. Serialize it again at its source."""

    code = "payload_corrupt"


class PayloadTruncated(PayloadError):
    """The bytes end before the task does. Receive all of them before they are read."""

    code = "payload_truncated"


class PayloadTooLarge(PayloadError):
    """The task is larger than a serialized one may be, or claims to be. Move its data by file or `abi.put`, and
    serialize where it is found."""

    code = "payload_too_large"


class PayloadTooNew(PayloadError):
    """The task was serialized by a later version of abi in a form that this one cannot read. Upgrade this side."""

    code = "payload_too_new"


class GetTimeoutError(AbiError, TimeoutError):
    """`get(timeout=)` or `wait` gave up waiting. The task itself goes on; call again."""

    code = "timed_out"


class ReentrantWait(AbiError, RuntimeError):
    """`get`, `wait` or `map` was called by a signal's handler, or a finaliser, that had interrupted another of them in
    the same thread, and would wait for what goes on only after it has returned. Note the signal there, and get the
    result later; `timeout=0`, `.remote()` and `cancel` may be called."""

    code = "reentrant"

    def __init__(
        self,
        message: str = "this code has interrupted a wait for results in its own thread, and cannot wait beneath that",
        *,
        code: str | None = None,
        hint: str = "note the signal in its handler, and get the result after the handler has returned",
    ) -> None:
        super().__init__(message, code=code, hint=hint)


class SerializationError(AbiError, TypeError):
    """A function, argument or result cannot be pickled, or did not load. The message says
    which one and where in it; pass something else or make it at its destination."""

    code = "serialization"


class TaskError(AbiError):
    """A task failed. `get` raises what is both this and the type of the task's own
    exception, so either `except` clause catches it.

    `cause` is the task's own exception where it could be loaded, else None;
    `remote_traceback` is its traceback as text; `task_id` the id as people see it;
    `task_name` the function's name; `host` where it ran; `attempt` counts from 1
    (0: it never started). Where the task's own exception has an attribute of one of
    these names, or `code`, `message`, `hint`, it is that one which `get` shows.
    """

    code = "error"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str = "",
        cause: BaseException | None = None,
        remote_traceback: str = "",
        task_id: str = "",
        task_name: str = "",
        host: str = "",
        attempt: int = 0,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.cause = cause
        self.remote_traceback = remote_traceback
        self.task_id = task_id
        self.task_name = task_name
        self.host = host
        self.attempt = attempt


class TaskCancelledError(TaskError):
    """The task was cancelled, by `cancel`, with its parent, or with the program that sent
    it. It will not run again; submit it anew if it is still wanted."""

    code = "cancelled"


class TaskLostError(TaskError):
    """The task had started, its worker or host was lost, and its retry words forbid
    another start (`max_retries=0`). It may have had effects; only you know whether a
    second start is safe."""

    code = "lost"


class TaskTimedOut(TaskError, TimeoutError):
    """The task ran longer than its `timeout=` and was ended. Give it more time, or less
    to do."""

    code = "timed_out"


class WorkerCrashedError(TaskError):
    """The worker process died each time this task ran in it. The message names the signal,
    exit code or out-of-memory, and the last lines of its standard error."""

    code = "crashed"


# What a daemon answers on a control connection, by code. "internal" and codes of a newer
# daemon become a plain AbiError that keeps the code.
_BY_CODE: dict[str, type[AbiError]] = {
    kind.code: kind
    for kind in (
        ConfigError, UsageError, ProtocolError, VersionMismatch, Denied, Busy, NotFound,
        Ambiguous, Refused, GetTimeoutError, NetworkDisabled, NodeUnreachable, Timeout,
    )
}  # fmt: skip


def error_from(answer: Mapping[str, object]) -> AbiError:
    """The exception that an `{"code", "message", "hint", "retry_after_ms"?}` object stands for."""
    code = str(answer.get("code", "internal"))
    message = str(answer.get("message") or code)
    hint = str(answer.get("hint") or "")
    kind = _BY_CODE.get(code, AbiError)
    if kind is Busy:
        after = answer.get("retry_after_ms")
        return Busy(message, hint=hint, retry_after_ms=after if isinstance(after, int) else 0)
    return kind(message, code=code, hint=hint)
