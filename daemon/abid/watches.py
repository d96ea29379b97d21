"""What a control connection is told again and again until it is over: a log that is followed, jobs that are waited for.

Nothing here blocks the loop: a log is read one slice a turn, and only when the reader has taken the last one.
"""

from __future__ import annotations

import base64
import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

from abi.errors import AbiError, UsageError
from abi.wire.job_log import HEAD, STDERR, STDOUT

if TYPE_CHECKING:
    from abid.control import Answer
    from abid.jobs import Job
    from abid.node import Node

LOG_SLICE_BYTES = 256 * 1024
STREAMS = {STDOUT: "stdout", STDERR: "stderr"}
WATCHES_MAX = 256
"""One client follows this many things on one connection; it may open another."""
TIMEOUT_S_MAX = 10 * 366 * 24 * 3600.0


class Watch:
    """Is stepped at each change of its jobs, and when what it said last has been read."""

    def __init__(self, answer: Answer, jobs: list[Job]) -> None:
        if len(answer.connection.watches) >= WATCHES_MAX:
            raise UsageError(f"{WATCHES_MAX} logs and waits are under way on this connection; no more")
        self.answer = answer
        self.jobs = jobs
        answer.connection.watches.append(self)
        for job in jobs:
            job.watchers.append(self.step)

    def step(self) -> None:
        """Say what is new. What goes wrong is told to whoever asked, and to nobody else: this is called by the job's
        own changes, and a job does not fail because its log could not be read."""
        try:
            self._step()
        except OSError as error:
            self.end()
            self.answer.fail(AbiError(f"what was asked for cannot be read: {error}"))

    def _step(self) -> None:
        raise AssertionError("each watch has its own step")

    @property
    def over(self) -> bool:
        return self not in self.answer.connection.watches

    def end(self) -> None:
        """No more is told. Idempotent."""
        if not self.over:
            self.answer.connection.watches.remove(self)
            for job in self.jobs:
                job.watchers.remove(self.step)
            self.answer.connection.node.touch()  # who stops the daemon may have waited for this


class LogWatch(Watch):
    """Sends a job's log from an offset on, slice by slice; with ``follow``, until the job is done."""

    def __init__(self, node: Node, answer: Answer, job: Job, offset: int, follow: bool, streams: list[str]) -> None:
        self.node = node
        self.job = job
        self.offset = max(0, offset)
        self.follow = follow
        self.streams = streams
        self._file: BinaryIO | None = None
        self._again = False
        super().__init__(answer, [job])
        self.step()

    def _step(self) -> None:
        if self._again or not self.answer.has_room:
            return
        done = self.job.end is not None  # read before the log: what was written before the end is sent before it
        if self._send_slice():
            self._again = True
            self.node.loop.call_soon(self._step_again)
        elif done or not self.follow:
            self.end()
            self.answer.result(self.node.jobs.describe(self.job))

    def _step_again(self) -> None:
        self._again = False
        if not self.over:
            self.step()

    def end(self) -> None:
        super().end()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> bytes:
        if self._file is None:
            with contextlib.suppress(FileNotFoundError):  # it has not begun
                self._file = open(self.job.log_path, "rb", buffering=0)  # noqa: SIM115 - until `end`
        if self._file is None:
            return b""
        fd = self._file.fileno()
        return os.pread(fd, LOG_SLICE_BYTES, self.offset) if self.offset < os.fstat(fd).st_size else b""

    def _send_slice(self) -> bool:
        """Send the records of the next slice; False when there is no whole one."""
        data = self._read()
        at = 0
        pending: list[bytes] = []  # neighbours of one stream go as one: a command may write byte by byte
        pending_stream = 0
        while len(data) - at >= HEAD.size:
            stream, length, _written_ns = HEAD.unpack_from(data, at)
            end = at + HEAD.size + length
            if end > len(data):
                break
            if stream != pending_stream:
                self._say(pending_stream, pending, at)
                pending, pending_stream = [], stream
            pending.append(data[at + HEAD.size : end])
            at = end
        self._say(pending_stream, pending, at)
        self.offset += at
        return at > 0

    def _say(self, stream: int, pieces: list[bytes], at: int) -> None:
        name = STREAMS.get(stream, "stdout")
        if pieces and name in self.streams:
            text = base64.b64encode(b"".join(pieces)).decode("ascii")
            self.answer.event(stream=name, data=text, offset=self.offset + at)


class WaitWatch(Watch):
    """Tells each job's end as it comes."""

    def __init__(self, node: Node, answer: Answer, jobs: list[Job], timeout_ms: int | None) -> None:
        self.node = node
        self.asked = jobs
        self.told: set[int] = set()
        super().__init__(answer, list({job.seq: job for job in jobs}.values()))
        self._timer = None
        if timeout_ms is not None:
            timeout_s = min(max(0.0, timeout_ms / 1000), TIMEOUT_S_MAX)
            self._timer = node.loop.call_later(timeout_s, self._on_timeout)
        self.step()

    def _step(self) -> None:
        for job in self.jobs:
            if job.end is not None and job.seq not in self.told:
                self.told.add(job.seq)
                self.answer.event(job=self.node.jobs.describe(job))
        if len(self.told) == len(self.jobs):
            self.end()
            self.answer.result({"jobs": [self.node.jobs.describe(job) for job in self.asked]})

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().end()

    def _on_timeout(self) -> None:
        waiting = sum(job.end is None for job in self.jobs)
        self.end()
        self.answer.fail(AbiError(f"{waiting} of {len(self.jobs)} jobs have not ended", code="timed_out"))
