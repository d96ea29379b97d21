"""Commands that people submitted: what was asked, where its output lies, how it ended, and who follows it.

A job is a task of the core like any other, in a session of its own that no program owns; here is what the core need not
know. Jobs end with their daemon for now: durability has its place here (``Job`` is what would be recorded).
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from abi import ids
from abi.errors import Ambiguous, Busy, NotFound, Refused
from abi.masking import masked_environment
from abi.processes import signal_name
from abi.wire.schema import ROOT, Command, CommandEnded, EndKind, Function, Options
from abid.core.task import Record

if TYPE_CHECKING:
    from abid.core.session import Session
    from abid.node import Node

log = logging.getLogger(__name__)

NAMED_OPTIONS_MAX = 10_000
"""The core keeps options for ever, and a name makes them differ: from here on jobs share theirs and `why` says less."""


_decode_command = msgspec.msgpack.Decoder(Command).decode


@dataclass
class Job:
    """One submitted command."""

    seq: int
    identity: bytes
    name: str
    packed: bytes
    """The ``Command``, as it goes to its supervisor: a tenth of what it takes unpacked, and it counts as the task's
    arguments, so that the queue's limit of bytes holds for jobs too."""
    options: Options
    log_path: Path
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    pid: int | None = None
    code: int | None = None
    signal: str | None = None
    error: str = ""
    end: EndKind | None = None
    state: str = "queued"
    log_size: int = 0
    discarded: int = 0
    """Bytes of output that are not in the log, those of earlier attempts included."""
    discarded_before: int = 0
    why_discarded: str = ""
    attempt: int = 0
    lost: str = ""
    """What ended the last attempt, if that was not the command itself."""
    watchers: list[Callable[[], None]] = field(default_factory=list)

    @property
    def command(self) -> Command:
        return _decode_command(self.packed)

    @property
    def packed_again(self) -> bytes:
        """The same for the next attempt: whoever reads its output is told that it runs once more."""
        remark = f"{self.lost}; the command is started again, attempt {self.attempt + 1}"
        return msgspec.msgpack.encode(msgspec.structs.replace(self.command, remark=remark))

    def changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()


class Jobs:
    """All jobs that are kept, oldest first."""

    def __init__(self, node: Node, session: Session, prefix: bytes, folder: Path) -> None:
        self.by_seq: OrderedDict[int, Job] = OrderedDict()
        self._node = node
        self._session = session
        self._prefix = prefix
        self._folder = folder
        self._next = 1
        self._counts = {"queued": 0, "running": 0, "done": 0}
        self._ended: deque[Job] = deque()
        """Those that are kept, in the order of their ends."""
        self._remove_logs()
        # Tasks name a function; those of a session of commands all name this one, which nothing ever loads.
        node.core.on_function(session, ROOT, Function(0, b"command", "command", b""))

    def _remove_logs(self) -> None:
        """Those of an earlier life: its jobs ended with it, and nobody can ask for their output any more."""
        for path in self._folder.glob("*.log"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("the output of a job of an earlier daemon stays: %s", error)

    def submit(self, command: Command, name: str, options: Options) -> Job:
        """Make a job of a command and hand it to the core. Raises Refused for what can never run here and Busy for a
        full queue; then there is no job."""
        core, session = self._node.core, self._session
        options.name = name if len(session.options) < NAMED_OPTIONS_MAX else ""
        known = core.on_options(session, ROOT, options)
        if known.refused:
            raise Refused(f"the job {known.refused}", hint="`abi status` shows what this node has")
        seq, self._next = self._next, self._next + 1
        identity = ids.task_id(self._prefix, seq)
        packed = msgspec.msgpack.encode(command)
        job = Job(seq, identity, name, packed, options, self._folder / f"{ids.to_text(identity)}.log", time.time())
        # Index 0 has just been said anew: options that were equal to earlier ones have no index of their own.
        record = Record(seq, 0, 0, packed)
        core.on_submit(session, ROOT, [record], self._node.now())
        self._node.touch()
        if record.end is not None:
            core.on_release(session, ROOT, [seq])
            raise Busy(
                f"the queue is full: {session.open_tasks} jobs wait or run",
                hint="wait for some of them: `abi jobs` lists them",
                retry_after_ms=core.board.limits.retry_after_ms,
            )
        self.by_seq[seq] = job
        self._counts["queued"] += 1
        return job

    def _become(self, job: Job, state: str) -> None:
        self._counts[job.state] -= 1
        self._counts[state] += 1
        job.state = state

    def on_started(self, job: Job | None, pid: int) -> None:
        if job is not None:
            job.pid, job.started_at = pid, time.time()
            job.attempt += 1
            job.discarded_before = job.discarded
            self._become(job, "running")
            job.changed()

    def on_grew(self, job: Job | None, size: int, discarded: int) -> None:
        if job is not None:
            job.log_size, job.discarded = size, job.discarded_before + discarded
            job.changed()

    def on_exited(self, job: Job, ended: CommandEnded) -> None:
        """The command is gone; its task's end follows and makes the job done."""
        job.log_size, job.discarded = ended.size, job.discarded_before + ended.discarded
        job.why_discarded = ended.why_discarded or job.why_discarded
        job.error = ended.error
        if os.WIFSIGNALED(ended.status):
            job.signal = signal_name(os.WTERMSIG(ended.status))
            job.code = 128 + os.WTERMSIG(ended.status)
        else:
            job.code = os.WEXITSTATUS(ended.status)

    def deliver(self, records: list[Record]) -> None:
        """Ends from the core."""
        for record in records:
            job = self.by_seq.get(record.seq)
            assert record.end is not None
            if job is None or job.end is not None:
                continue
            job.end = EndKind(record.end.kind)
            job.ended_at = time.time()
            if job.end is not EndKind.OK and (job.end is not EndKind.ERROR or job.code is None):
                job.error = self._node.failure_text(record.end) or job.error
            self._become(job, "done")
            self._ended.append(job)
            job.changed()
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        excess = len(self._ended) - self._node.config.integer("jobs.keep_max")
        for _ in range(max(0, excess)):
            job = self._ended.popleft()
            if job.watchers:  # somebody still reads it: its turn comes again
                self._ended.append(job)
                continue
            del self.by_seq[job.seq]
            self._counts["done"] -= 1
            job.log_path.unlink(missing_ok=True)
            self._node.core.on_release(self._session, ROOT, [job.seq])

    def find(self, text: str) -> Job:
        """The job that ``text`` names: ``last`` or a unique prefix of its id. Raises NotFound or Ambiguous."""
        if text == "last":
            if not self.by_seq:
                raise NotFound("there is no job yet", hint="submit one: abi submit -- COMMAND")
            return next(reversed(self.by_seq.values()))
        if len(text) == ids.TEXT_LETTERS:
            return self._find_whole(text)
        found = [job for job in self.by_seq.values() if ids.to_text(job.identity).startswith(text.lower())]
        if not text or not found:
            raise NotFound(f"no job {text!r} here", hint="`abi jobs --all` lists those that are kept")
        if len(found) > 1:
            names = ", ".join(ids.short(job.identity) for job in found[:5])
            raise Ambiguous(f"{text!r} could be {len(found)} jobs: {names}", hint="give more letters")
        return found[0]

    def _find_whole(self, text: str) -> Job:
        """The straight way for programs, which say the whole id, among a million jobs."""
        try:
            prefix, seq = ids.split(ids.from_text(text.lower()))
        except ValueError:
            prefix, seq = b"", 0
        job = self.by_seq.get(seq)
        if job is None or prefix != self._prefix:
            raise NotFound(f"no job {text!r} here", hint="`abi jobs --all` lists those that are kept")
        return job

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as it is told of wherever there is room for a reason."""
        record = self._session.tasks.get(job.seq)
        why = ""
        if job.end is None and record is not None:
            why = self._node.core.why(self._session, record, self._node.now())
        return {**self.brief(job), "why": why}

    def environment(self, job: Job) -> dict[str, object]:
        """What `abi show` sees beside that. Values that look like secrets are not shown."""
        environment = {os.fsdecode(key): os.fsdecode(value) for key, value in job.command.environment.items()}
        return masked_environment(environment)

    def brief(self, job: Job) -> dict[str, Any]:
        """What `abi jobs` sees of each: no environment, and no reason, which costs a walk through the queue."""
        command = job.command
        return {
            "id": ids.to_text(job.identity),
            "short": ids.short(job.identity),
            "name": job.name,
            "state": job.state,
            "end": None if job.end is None else job.end.name.lower(),
            "code": job.code,
            "signal": job.signal,
            "error": job.error,
            "command": [os.fsdecode(word) for word in command.argv],
            "cwd": os.fsdecode(command.directory),
            "cpus": job.options.cpus / 10_000,
            "submitted_at": job.submitted_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "pid": job.pid,
            "attempt": job.attempt,
            "discarded_bytes": job.discarded,
            "why_discarded": job.why_discarded,
        }

    def counts(self) -> dict[str, int]:
        return dict(self._counts)
