"""One command as its daemon sees it: a supervisor, forked from a zygote, that runs it and writes its log file itself.

The supervisor needs nobody to read: a slow reader never blocks the command, and what it wrote before a crash is in the
file. We only hear how long the file has become and, at last, how the command ended.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

import msgspec

from abi.errors import ProtocolError
from abi.objects.slot_page import SlotPage
from abi.processes import describe_status
from abi.wire.codec import decode_items, decoders, encode_failure, encode_items
from abi.wire.frames import Frame
from abi.wire.schema import (
    CommandEnded,
    CommandGrew,
    CommandSignal,
    CommandStarted,
    End,
    EndKind,
    Failure,
    Kind,
)
from abid.channel import Channel

if TYPE_CHECKING:
    from abid.core.task import Record
    from abid.core.workers import Worker
    from abid.jobs import Job
    from abid.node import Node
    from abid.zygotes import Zygote

log = logging.getLogger(__name__)

_decoders = decoders((Kind.COMMAND_STARTED, Kind.COMMAND_GREW, Kind.COMMAND_ENDED))


class CommandProcess:
    """Speaks to one supervisor. The same words as ``WorkerProcess``, for the node to use either."""

    def __init__(self, node: Node, core_worker: Worker, zygote: Zygote) -> None:
        self.node = node
        self.core = core_worker
        self.number = core_worker.number
        self.zygote = zygote
        self.pid = 0
        self.killed_because = ""
        self._job: Job | None = None
        self._record: Record | None = None
        self._pidfd = -1
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.page, self._page_fd = SlotPage.create()
        self.channel = Channel(node.loop, ours, self._on_frame, self._on_channel_closed)

    def __repr__(self) -> str:
        return f"<command {self.number}, pid {self.pid}>"

    def run(self, records: list[Record]) -> None:
        """Start the one command that this supervisor is for."""
        (record,) = records
        job = self.node.jobs.by_seq[record.seq]
        self._job, self._record = job, record
        try:
            log_fd = os.open(job.log_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._theirs.close()
            os.close(self._page_fd)
            self.node.loop.call_soon(self._fail, f"its log {job.log_path} cannot be written: {error.strerror}")
            return
        try:
            self.zygote.fork(self.number, True, [self._theirs.fileno(), self._page_fd, log_fd])
        finally:
            os.close(log_fd)
            os.close(self._page_fd)
            self._theirs.close()
        self.page.running = record.number  # a supervisor has one call, and it runs from now on
        self.channel.send(Kind.COMMAND, encode_items([msgspec.Raw(job.packed_again if job.lost else job.packed)]))

    def _fail(self, why: str) -> None:
        """There is no process and will be none: the job ends here."""
        self.page.running = 0
        self._on_ended(CommandEnded(126 << 8, 0, why))
        self.node.pool.never_was(self)

    def recall(self) -> tuple[int, int]:
        return self.page.running, self.page.since

    def interrupt(self, number: int) -> None:
        """SIGTERM to the command's process group."""
        self.channel.send(Kind.COMMAND_SIGNAL, encode_items([CommandSignal(int(signal.SIGTERM))]))

    def kill(self, why: str) -> None:
        """Kill the supervisor: its zygote then ends all that it leaves."""
        self.killed_because = self.killed_because or why
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def stop(self) -> None:
        """A supervisor leaves by itself after its command."""

    def forked(self, pid: int, pidfd: int) -> None:
        self.pid, self._pidfd = pid, pidfd
        if self.killed_because:
            self.kill(self.killed_because)

    def _on_frame(self, frame: Frame, fds: list[int]) -> None:
        for item in decode_items(_decoders, frame.kind, frame.payload):
            match item:
                case CommandStarted(pid=pid):
                    self.node.jobs.on_started(self._job, pid)
                case CommandGrew(size=size, discarded=discarded):
                    self.node.jobs.on_grew(self._job, size, discarded)
                case CommandEnded():
                    self._on_ended(item)
        self.node.touch()

    def _on_ended(self, ended: CommandEnded) -> None:
        if not 0 <= ended.status <= 0xFFFF:
            raise ProtocolError(f"{ended.status} is no wait status")
        job, record = self._job, self._record
        assert job is not None
        assert record is not None
        self.page.running = 0
        self.node.jobs.on_exited(job, ended)
        if ended.error:
            failure = Failure("CommandNotStarted", ended.error, task_name=job.name, host=self.node.host)
            end = End(record.seq, EndKind.ERROR, encode_failure(failure), record.attempt)
        elif ended.status == 0 and not record.cause:  # what we ended is no success, however politely it went
            end = End(record.seq, EndKind.OK, b"", record.attempt)
        else:
            failure = Failure("CommandFailed", describe_status(ended.status), task_name=job.name, host=self.node.host)
            end = End(record.seq, EndKind.ERROR, encode_failure(failure), record.attempt)
        self.node.core.on_results(self.core, [end], self.node.now(), None)

    def on_lost(self, why: str) -> None:
        """It died before its command had ended."""
        if self._job is not None and self._job.attempt:
            self._job.lost = why.partition("\n")[0]

    def _on_channel_closed(self, why: str) -> None:
        if why:
            self.kill(f"the supervisor broke the protocol: {why}")

    def collect(self) -> int:
        """The supervisor is gone: take in what it had said; which call was running (0: its command had ended)."""
        self.channel.read_rest()
        self.channel.close("")
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return self.page.running

    def stderr_tail(self, number: int) -> str:
        return ""
