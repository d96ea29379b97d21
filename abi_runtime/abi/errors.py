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


class Busy(AbiError):
    """The daemon's queue is full. Nothing was accepted: try again after
    `retry_after_ms` milliseconds, or wait for some results first."""

    code = "busy"

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


class GetTimeoutError(AbiError, TimeoutError):
    """`get(timeout=)` or `wait` gave up waiting. The task itself goes on; call again."""

    code = "timed_out"


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
    (0: it never started).
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
        Ambiguous, Refused, GetTimeoutError,
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
