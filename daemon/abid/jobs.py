"""Commands that people submitted: what was asked, where its output lies, how it ended, and who follows it.

A job is a task of the core like any other, in a session of its own that no program owns; here is what the core need not
know. Jobs end with their daemon for now: durability has its place here (``Job`` is what would be recorded).
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abi import ids
from abi.errors import Ambiguous, NotFound
from abi.wire.schema import ROOT, Command, CommandEnded, EndKind, Function, Options
from abid.commands import signal_name
from abid.core.task import Record

if TYPE_CHECKING:
    from abid.core.session import Session
    from abid.node import Node

SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "API_KEY", "PRIVATE_KEY", "CREDENTIAL")


@dataclass
class Job:
    """One submitted command."""

    seq: int
    identity: bytes
    name: str
    command: Command
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
    log_size: int = 0
    attempt: int = 0
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()


class Jobs:
    """All jobs that are kept, oldest first."""

    def __init__(self, node: Node, session: Session, prefix: bytes, folder: Path, keep_max: int) -> None:
        self.by_seq: OrderedDict[int, Job] = OrderedDict()
        self._node = node
        self._session = session
        self._prefix = prefix
        self._folder = folder
        self._keep_max = keep_max
        self._next = 1
        # Tasks name a function; those of a session of commands all name this one, which nothing ever loads.
        node.core.on_function(session, ROOT, Function(0, b"command", "command", b""))

    def submit(self, command: Command, name: str, options: Options) -> Job:
        """Make a job of a command and hand it to the core. Refusals of the core are the job's end."""
        seq, self._next = self._next, self._next + 1
        identity = ids.task_id(self._prefix, seq)
        job = Job(seq, identity, name, command, options, self._folder / f"{ids.to_text(identity)}.log", time.time())
        self.by_seq[seq] = job
        options.index = len(self._session.holders[ROOT].options)
        index = self._node.core.on_options(self._session, ROOT, options).wire.index
        record = Record(seq, 0, index)
        self._node.core.on_submit(self._session, ROOT, [record], self._node.now())
        self._node.touch()
        return job

    def on_started(self, job: Job | None, pid: int) -> None:
        if job is not None:
            job.pid, job.started_at = pid, time.time()
            job.attempt += 1
            job.changed()

    def on_grew(self, job: Job | None, size: int) -> None:
        if job is not None:
            job.log_size = size
            job.changed()

    def on_exited(self, job: Job, ended: CommandEnded) -> None:
        """The command is gone; its task's end follows and makes the job done."""
        job.log_size = ended.size
        job.error = ended.error
        if not ended.error:
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
            if job.end is not EndKind.OK and not job.error and job.code is None:
                job.error = self._node.failure_text(record.end)
            job.changed()
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        excess = sum(job.end is not None for job in self.by_seq.values()) - self._keep_max
        for seq in [seq for seq, job in self.by_seq.items() if job.end is not None][: max(0, excess)]:
            self.by_seq.pop(seq).log_path.unlink(missing_ok=True)
            self._node.core.on_release(self._session, ROOT, [seq])

    def find(self, text: str) -> Job:
        """The job that ``text`` names: ``last`` or a unique prefix of its id. Raises NotFound or Ambiguous."""
        if text == "last":
            if not self.by_seq:
                raise NotFound("there is no job yet", hint="submit one: abi submit -- COMMAND")
            return next(reversed(self.by_seq.values()))
        found = [job for job in self.by_seq.values() if ids.to_text(job.identity).startswith(text.lower())]
        if not text or not found:
            raise NotFound(f"no job {text!r} here", hint="`abi jobs --all` lists those that are kept")
        if len(found) > 1:
            names = ", ".join(ids.short(job.identity) for job in found[:5])
            raise Ambiguous(f"{text!r} could be {len(found)} jobs: {names}", hint="give more letters")
        return found[0]

    def describe(self, job: Job) -> dict[str, Any]:
        """What `abi jobs` and `abi show` see. Values that look like secrets are not shown."""
        record = self._session.tasks.get(job.seq)
        state = "done" if job.end is not None else "running" if job.started_at is not None else "queued"
        why = ""
        if job.end is None and record is not None:
            why = self._node.core.why(self._session, record, self._node.now())
        return {
            "id": ids.to_text(job.identity),
            "short": ids.short(job.identity),
            "name": job.name,
            "state": state,
            "end": None if job.end is None else job.end.name.lower(),
            "code": job.code,
            "signal": job.signal,
            "error": job.error,
            "command": job.command.argv,
            "cwd": job.command.directory,
            "env": {key: "***" if looks_secret(key) else value for key, value in job.command.environment.items()},
            "cpus": job.options.cpus / 10_000,
            "submitted_at": job.submitted_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "pid": job.pid,
            "attempt": job.attempt,
            "why": why,
        }

    def counts(self) -> dict[str, int]:
        counts = {"queued": 0, "running": 0, "done": 0}
        for job in self.by_seq.values():
            counts["done" if job.end is not None else "running" if job.started_at is not None else "queued"] += 1
        return counts


def looks_secret(name: str) -> bool:
    """Whether an environment variable's value had better not be shown."""
    upper = name.upper()
    return any(word in upper for word in SECRET_WORDS)
