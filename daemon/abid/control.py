"""Control: what the command line asks, in JSON, one handler per operation.

A handler gets the request's words and an ``Answer``; it answers at once, or keeps the answer and speaks later
(``logs``, ``wait``). Nothing here may block the loop: a log is read in slices, and only when the reader has taken the
last one.
"""

from __future__ import annotations

import base64
import logging
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from abi.errors import AbiError, ProtocolError, UsageError
from abi.wire.frames import JSON, Frame
from abi.wire.schema import UNITS, Command, Kind, Options
from abid.channel import Channel

if TYPE_CHECKING:
    from abid.jobs import Job
    from abid.node import Node

log = logging.getLogger(__name__)

LOG_RECORD = struct.Struct("<BxxxIQ")
"""Head of a record in a job's log: stream, length, wall-clock ns (see ``abi_worker.supervisor``)."""
LOG_SLICE_BYTES = 256 * 1024
STREAMS = {1: "stdout", 2: "stderr"}
PRIORITIES = {"low": 0, "normal": 1, "high": 2, "critical": 3}
Words = dict[str, Any]


class ControlConnection:
    """One control connection: requests are handled in the order in which they come."""

    def __init__(self, node: Node, channel: Channel) -> None:
        self.node = node
        self.channel = channel
        self.watches: list[Watch] = []
        channel.on_drained = self._on_drained

    def on_frame(self, frame: Frame, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        if frame.kind != Kind.REQUEST or frame.codec != JSON:
            raise ProtocolError("a control connection sends requests, in JSON")
        try:
            words = msgspec.json.decode(frame.payload)
            number, op = int(words["id"]), str(words["op"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
            raise ProtocolError("a request needs `id` and `op`") from None
        answer = Answer(self, number)
        try:
            handler = OPERATIONS.get(op)
            if handler is None:
                raise UsageError(f"there is no operation {op!r}", hint=f"there are {', '.join(OPERATIONS)}")
            handler(self.node, words, answer)
        except AbiError as error:
            answer.fail(error)
        except (KeyError, TypeError, ValueError) as error:
            answer.fail(UsageError(f"{op}: {error!r} is not what this operation takes"))
        self.node.touch()

    def _on_drained(self) -> None:
        for watch in list(self.watches):
            watch.step()

    def on_closed(self) -> None:
        for watch in list(self.watches):
            watch.end()


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
        self.connection.channel.send(kind, msgspec.json.encode(words), codec=JSON)

    @property
    def has_room(self) -> bool:
        return self.connection.channel.queued == 0


class Watch:
    """Something that is told again and again until it is over: a followed log, a wait."""

    def __init__(self, answer: Answer, jobs: list[Job]) -> None:
        self.answer = answer
        self.jobs = jobs
        answer.connection.watches.append(self)
        for job in jobs:
            job.watchers.append(self.step)

    def step(self) -> None:
        raise AssertionError("each watch has its own step")

    def end(self) -> None:
        if self in self.answer.connection.watches:
            self.answer.connection.watches.remove(self)
            for job in self.jobs:
                job.watchers.remove(self.step)


class LogWatch(Watch):
    """Sends a job's log from an offset on, slice by slice; with ``follow``, until the job is done."""

    def __init__(self, node: Node, answer: Answer, job: Job, offset: int, follow: bool, streams: list[str]) -> None:
        self.node = node
        self.job = job
        self.offset = offset
        self.follow = follow
        self.streams = streams
        super().__init__(answer, [job])
        self.step()

    def step(self) -> None:
        while self.answer.has_room:
            done = self.job.end is not None  # read before the log: what was written before the end is sent before it
            if self._send_slice():
                continue
            if done or not self.follow:
                self.end()
                self.answer.result(self.node.jobs.describe(self.job))
            return

    def _send_slice(self) -> bool:
        """Send the records of the next slice; False when there is no whole one."""
        try:
            with open(self.job.log_path, "rb") as file:
                file.seek(self.offset)
                data = file.read(LOG_SLICE_BYTES)
        except FileNotFoundError:
            return False
        at = 0
        while len(data) - at >= LOG_RECORD.size:
            stream, length, _written_ns = LOG_RECORD.unpack_from(data, at)
            end = at + LOG_RECORD.size + length
            if end > len(data):
                break
            name = STREAMS.get(stream, "stdout")
            if name in self.streams:
                text = base64.b64encode(data[at + LOG_RECORD.size : end]).decode("ascii")
                self.answer.event(stream=name, data=text, offset=self.offset + end)
            at = end
        self.offset += at
        return at > 0


class WaitWatch(Watch):
    """Tells each job's end as it comes."""

    def __init__(self, node: Node, answer: Answer, jobs: list[Job], timeout_ms: int | None) -> None:
        self.node = node
        self.told: set[int] = set()
        super().__init__(answer, jobs)
        self._timer = None if timeout_ms is None else node.loop.call_later(timeout_ms / 1000, self._on_timeout)
        self.step()

    def step(self) -> None:
        for job in self.jobs:
            if job.end is not None and job.seq not in self.told:
                self.told.add(job.seq)
                self.answer.event(job=self.node.jobs.describe(job))
        if len(self.told) == len({job.seq for job in self.jobs}):
            self.end()
            self.answer.result({"jobs": [self.node.jobs.describe(job) for job in self.jobs]})

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().end()

    def _on_timeout(self) -> None:
        waiting = sum(job.end is None for job in self.jobs)
        self.end()
        self.answer.fail(AbiError(f"{waiting} of {len(self.jobs)} jobs have not ended", code="timed_out"))


def _ping(node: Node, words: Words, answer: Answer) -> None:
    answer.result({"pid": os.getpid()})


def _status(node: Node, words: Words, answer: Answer) -> None:
    answer.result(node.status())


def _jobs(node: Node, words: Words, answer: Answer) -> None:
    jobs = node.jobs.by_seq.values()
    answer.result({"jobs": [node.jobs.describe(job) for job in jobs if words.get("all") or job.end is None]})


def _show(node: Node, words: Words, answer: Answer) -> None:
    answer.result(node.jobs.describe(node.jobs.find(str(words["target"]))))


def _submit(node: Node, words: Words, answer: Answer) -> None:
    if words.get("durable"):
        raise UsageError("durable jobs are not there yet", hint="leave out `durable`: the job ends with its daemon")
    argv = [str(word) for word in words["command"]]
    if not argv or not argv[0]:
        raise UsageError("there is no command to run", hint="abi submit -- COMMAND …")
    if node.draining:
        raise AbiError("the daemon is stopping", code="busy", hint="try again when the next one has started")
    environment = {str(name): str(value) for name, value in (words.get("env") or {}).items()}
    command = Command(argv, str(words["cwd"]), environment, node.config.integer("jobs.log_bytes_max"))
    name = str(words.get("name") or os.path.basename(argv[0]))
    options = Options(
        0,
        name=name,
        cpus=_units(words.get("cpus"), 1.0),
        memory=int(words.get("memory") or 0),
        resources={str(key): _units(value, 0.0) for key, value in (words.get("resources") or {}).items()},
        timeout_ns=int(words.get("time_limit_ms") or 0) * 1_000_000,
        priority=PRIORITIES[str(words.get("priority") or "normal")],
    )
    job = node.jobs.submit(command, name, options)
    described = node.jobs.describe(job)
    answer.result({"id": described["id"], "short": described["short"]})


def _units(value: Any, default: float) -> int:
    number = default if value is None else float(value)
    if not 0 <= number < 1_000_000:
        raise UsageError(f"{number} is not an amount of a resource")
    return round(number * UNITS)


def _logs(node: Node, words: Words, answer: Answer) -> None:
    job = node.jobs.find(str(words["target"]))
    streams = [str(stream) for stream in words.get("streams") or STREAMS.values()]
    LogWatch(node, answer, job, max(0, int(words.get("offset") or 0)), bool(words.get("follow")), streams)


def _wait(node: Node, words: Words, answer: Answer) -> None:
    jobs = [node.jobs.find(str(name)) for name in words["ids"]]
    timeout_ms = words.get("timeout_ms")
    WaitWatch(node, answer, jobs, None if timeout_ms is None else int(timeout_ms))


def _cancel(node: Node, words: Words, answer: Answer) -> None:
    job = node.jobs.find(str(words["target"]))
    node.core.on_cancel(node.jobs_session, [job.seq], bool(words.get("force")), True, node.now())
    answer.result({"job": node.jobs.describe(job)})


def _config(node: Node, words: Words, answer: Answer) -> None:
    answer.result({"values": node.config.shown(), "file": node.config.file})


def _reload(node: Node, words: Words, answer: Answer) -> None:
    answer.result({"changed": node.reload()})


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
}
