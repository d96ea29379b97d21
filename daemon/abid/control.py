"""Control: what the command line asks, in JSON, one handler per operation.

A handler gets the request's words and an ``Answer``; it answers at once, or keeps the answer and speaks later
(``logs``, ``wait``: see ``watches``). Nothing here may block the loop.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from abi import ids
from abi.amounts import units
from abi.errors import AbiError, ProtocolError, UsageError
from abi.wire.frames import JSON, Frame
from abi.wire.schema import Command, Kind, Options
from abid import network
from abid.channel import Channel
from abid.watches import STREAMS, LogWatch, WaitWatch, Watch

if TYPE_CHECKING:
    from abid.node import Node

log = logging.getLogger(__name__)

TIME_LIMIT_MS_MAX = 10 * 366 * 24 * 3600 * 1000
"""Ten years: what is longer is a slip of the unit."""
REQUESTS_UNANSWERED_BYTES_MAX = 4 * 1024 * 1024
"""Answers that wait for a client that does not read; until it has, no more of its requests are taken."""
JOBS_LISTED_MAX = 10_000
"""More than anybody reads, and some megabytes of JSON."""
PRIORITIES = {"low": 0, "normal": 1, "high": 2, "critical": 3}
Words = dict[str, Any]


class ControlConnection:
    """One control connection: requests are handled in the order in which they come."""

    def __init__(self, node: Node, channel: Channel, heard: Callable[[], None]) -> None:
        self.node = node
        self.channel = channel
        self._heard = heard
        self.watches: list[Watch] = []
        channel.on_drained = self._on_drained

    def on_frame(self, frame: Frame, fds: list[int]) -> None:
        if frame.kind != Kind.REQUEST or frame.codec != JSON:
            raise ProtocolError("a control connection sends requests, in JSON")
        words, number, op = _understand(frame.payload)
        self._heard()
        answer = Answer(self, number)
        try:
            handler = OPERATIONS.get(op)
            if handler is None:
                raise UsageError(f"there is no operation {op!r}", hint=f"there are {', '.join(OPERATIONS)}")
            handler(self.node, words, answer)
        except AbiError as error:
            answer.fail(error)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            answer.fail(UsageError(f"{op} does not take this: {error}"))
        except OSError as error:
            answer.fail(AbiError(f"{op}: {error}"))
        if self.channel.queued > REQUESTS_UNANSWERED_BYTES_MAX:
            self.channel.pause_reading()
        self.node.touch()

    def _on_drained(self) -> None:
        self.channel.resume_reading()
        for watch in list(self.watches):
            watch.step()

    def say_goodbye(self) -> None:
        """The daemon is about to go: whoever waits is told that nothing more comes."""
        for watch in list(self.watches):
            watch.end()
            watch.answer.fail(
                AbiError(
                    "the daemon stopped before the job had ended, and the job ended with it",
                    code="unreachable",
                    hint="`abid start -d` starts another; submit the job again",
                )
            )

    def on_closed(self) -> None:
        for watch in list(self.watches):
            watch.end()


def _understand(payload: memoryview) -> tuple[Words, int, str]:
    """A request, its number and its operation. Raises ProtocolError."""
    try:
        try:
            words = msgspec.json.decode(payload)
        except msgspec.DecodeError:  # of lone surrogates, say: names that are no UTF-8 (``abi.control``)
            words = json.loads(bytes(payload))
        number, op = words["id"], words["op"]
        if type(number) is not int or not 0 <= number < 1 << 53 or type(op) is not str:
            raise TypeError
    except (KeyError, TypeError, ValueError, IndexError, RecursionError):
        raise ProtocolError("a request needs `id` and `op`") from None
    return words, number, op


class Answer:
    """Where the answer to one request goes."""

    def __init__(self, connection: ControlConnection, number: int) -> None:
        self.connection = connection
        self._number = number

    def event(self, **words: Any) -> None:
        self._send(Kind.EVENT, {"id": self._number, "event": words})

    def result(self, words: Words) -> None:
        self._send(Kind.RESPONSE, {"id": self._number, "result": words})

    def fail(self, error: AbiError) -> None:
        words: Words = {"code": error.code, "message": error.message, "hint": error.hint}
        retry_after_ms = getattr(error, "retry_after_ms", None)
        if retry_after_ms is not None:
            words["retry_after_ms"] = retry_after_ms
        self._send(Kind.RESPONSE, {"id": self._number, "error": words})

    def _send(self, kind: Kind, words: Words) -> None:
        try:
            payload = msgspec.json.encode(words)
        except UnicodeEncodeError:  # a file's name that is no text, which Python holds as lone surrogates
            payload = json.dumps(words).encode("ascii")
        self.connection.channel.send(kind, payload, codec=JSON)

    @property
    def has_room(self) -> bool:
        return self.connection.channel.queued == 0


def _ping(node: Node, words: Words, answer: Answer) -> None:
    answer.result({"pid": os.getpid()})


def _status(node: Node, words: Words, answer: Answer) -> None:
    answer.result(node.status())


def _jobs(node: Node, words: Words, answer: Answer) -> None:
    jobs = node.jobs.by_seq.values()
    wanted = [job for job in jobs if words.get("all") or job.end is None]
    listed = [node.jobs.brief(job) for job in wanted[-JOBS_LISTED_MAX:]]
    answer.result({"jobs": listed, "left_out": len(wanted) - len(listed)})


def _show(node: Node, words: Words, answer: Answer) -> None:
    job = node.jobs.find(str(words["target"]))
    answer.result({**node.jobs.describe(job), "env": node.jobs.environment(job)})


class SubmitRequest(msgspec.Struct):
    """The words of `submit`, checked: None is what was not said."""

    command: list[str]
    cwd: str
    env: dict[str, str] | None = None
    name: str | None = None
    cpus: float | None = None
    memory: int | None = None
    resources: dict[str, float] | None = None
    time_limit_ms: Annotated[int, msgspec.Meta(ge=0, le=TIME_LIMIT_MS_MAX)] | None = None
    priority: Literal["low", "normal", "high", "critical"] | None = None
    durable: bool | None = None


def _submit(node: Node, words: Words, answer: Answer) -> None:
    request = msgspec.convert(words, SubmitRequest)
    if request.durable:
        raise UsageError("durable jobs are not there yet", hint="leave out `durable`: the job ends with its daemon")
    if not request.command or not request.command[0]:
        raise UsageError("there is no command to run", hint="abi submit -- COMMAND …")
    if not os.path.isabs(request.cwd):
        raise UsageError(f"the directory {request.cwd!r} is not an absolute path")
    if node.draining:
        raise AbiError("the daemon is stopping", code="busy", hint="try again when the next one has started")
    environment = {os.fsencode(name): os.fsencode(value) for name, value in (request.env or {}).items()}
    argv = [os.fsencode(word) for word in request.command]
    command = Command(argv, os.fsencode(request.cwd), environment, node.config.integer("jobs.log_bytes_max"))
    options = Options(
        0,
        cpus=_units("cpus", 1.0 if request.cpus is None else request.cpus),
        memory=request.memory or 0,
        resources={name: _units(f"resource {name}", value) for name, value in (request.resources or {}).items()},
        timeout_ns=(request.time_limit_ms or 0) * 1_000_000,
        priority=PRIORITIES[request.priority or "normal"],
    )
    job = node.jobs.submit(command, request.name or os.path.basename(request.command[0]), options)
    answer.result({"id": ids.to_text(job.identity), "short": ids.short(job.identity)})


def _units(name: str, amount: float) -> int:
    """``abi.amounts.units``, for whoever asked through this socket. Raises UsageError."""
    try:
        return units(name, amount)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _logs(node: Node, words: Words, answer: Answer) -> None:
    job = node.jobs.find(str(words["target"]))
    streams = [str(stream) for stream in words.get("streams") or STREAMS.values()]
    LogWatch(node, answer, job, int(words.get("offset") or 0), bool(words.get("follow")), streams)


def _wait(node: Node, words: Words, answer: Answer) -> None:
    jobs = [node.jobs.find(str(name)) for name in words["ids"]]
    timeout_ms = words.get("timeout_ms")
    WaitWatch(node, answer, jobs, None if timeout_ms is None else int(timeout_ms))


def _cancel(node: Node, words: Words, answer: Answer) -> None:
    job = node.jobs.find(str(words["target"]))
    had_ended = job.end is not None
    node.core.on_cancel(node.jobs_session, [job.seq], bool(words.get("force")), True, node.now())
    node.touch()  # what waited has ended when that is done: the answer comes after it
    node.loop.call_soon(lambda: answer.result({"job": node.jobs.describe(job), "had_ended": had_ended}))


def _config(node: Node, words: Words, answer: Answer) -> None:
    answer.result({"values": node.config.shown(), "file": node.config.file})


def _reload(node: Node, words: Words, answer: Answer) -> None:
    reloaded = node.reload()
    answer.result({"changed": reloaded.changed, "restart": reloaded.restart})


def _stop(node: Node, words: Words, answer: Answer) -> None:
    answer.result({})
    node.stop(now=bool(words.get("now")))


OPERATIONS: dict[str, Callable[[Any, Words, Answer], None]] = {
    "ping": _ping,
    "status": _status,
    "jobs": _jobs,
    "show": _show,
    "submit": _submit,
    "logs": _logs,
    "wait": _wait,
    "cancel": _cancel,
    "config": _config,
    "reload": _reload,
    "stop": _stop,
    **network.OPERATIONS,
}
