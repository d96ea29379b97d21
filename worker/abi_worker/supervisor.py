"""Runs one command and outlives it by a moment: keeps its output, tells how it ended, leaves nothing behind.

It reads both pipes and appends to the log itself, so neither a slow reader nor a stopped daemon ever blocks the
command, and a crash of the daemon loses no output. What the command left running is killed when the command ends: it
is a child subreaper, so even a process with a session of its own is its child by then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from typing import Final, NoReturn

from abi.wire.job_log import STDERR, STDOUT
from abi.wire.schema import Command, CommandEnded, CommandGrew, CommandSignal, CommandStarted, Item, Kind
from abi_worker import linux
from abi_worker.channel import Channel
from abi_worker.command import NOT_RUN, CommandFailed, start
from abi_worker.command_log import CommandLog

READ_BYTES: Final = 64 * 1024
"""As much as a pipe holds, unless somebody changed it."""
GREW_INTERVAL_NS: Final = 20_000_000
"""A chatty command tells of its log fifty times a second; after 20 ms of silence the next output is told at once."""


def supervise(socket_fd: int, page_fd: int, log_fd: int) -> NoReturn:
    """Never returns: exits 0 once the daemon knows the end, 1 when there is no daemon any more."""
    os.close(page_fd)
    channel = Channel(socket_fd, [Kind.COMMAND, Kind.COMMAND_SIGNAL])
    try:
        command, others = _await_command(channel)
        _Supervisor(channel, CommandLog(log_fd, command.log_bytes_max)).run(command, others)
    except (EOFError, OSError):
        linux.kill_descendants()
        os._exit(1)
    os._exit(0)


def _await_command(channel: Channel) -> tuple[Command, list[Item]]:
    """The command, and what came together with it."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    items: list[Item] = []
    while not items:
        poll.poll()
        items = [item for message in channel.receive() for item in message.items]
    command, *others = items
    if isinstance(command, Command):
        return command, others
    os._exit(0)  # a signal for what has not begun


class _Supervisor:
    def __init__(self, channel: Channel, log: CommandLog) -> None:
        self.channel = channel
        self.log = log
        self.pid = 0
        self.status: int | None = None
        self.told = (log.size, 0)
        """How long the log was, and how much was discarded, when we said so last."""
        self.told_ns = 0
        self.poll = select.poll()
        self.streams: dict[int, int] = {}
        """Stream number by the read end that it comes from; a pipe that ended is not in it."""

    def run(self, command: Command, others: Iterable[Item]) -> None:
        """``others`` came together with the command, and are for it."""
        if command.remark:
            self.log.remark(command.remark)
        wakeups, wakeups_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeups_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        out_write, err_write = self._open_pipe(STDOUT), self._open_pipe(STDERR)
        try:
            self.pid = start(command, out_write, err_write)
        except (CommandFailed, OSError) as error:
            code = error.code if isinstance(error, CommandFailed) else NOT_RUN
            self.channel.send(Kind.COMMAND_ENDED, CommandEnded(code << 8, self.log.size, str(error)))
            return
        os.close(out_write)
        os.close(err_write)
        self.channel.send(Kind.COMMAND_STARTED, CommandStarted(self.pid))
        self.poll.register(self.channel.fileno(), select.POLLIN)
        self.poll.register(wakeups, select.POLLIN)
        self._take(others)
        while self.status is None:
            self._attend(wakeups)
        linux.kill_descendants()
        for fd in list(self.streams):
            self._drain(fd)
        log = self.log
        ended = CommandEnded(self.status, log.size, discarded=log.discarded, why_discarded=log.why_discarded)
        self.channel.send(Kind.COMMAND_ENDED, ended)

    def _open_pipe(self, stream: int) -> int:
        """The write end; the read end is polled from now on."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        self.streams[read_end] = stream
        self.poll.register(read_end, select.POLLIN)
        return write_end

    def _attend(self, wakeups: int) -> None:
        for fd, _ in self.poll.poll(self._timeout_ms()):
            if fd == wakeups:
                os.read(wakeups, 4096)
                self._reap()
            elif fd in self.streams:
                self._read(fd)
            else:
                self._on_messages()
        self._tell_growth()

    def _timeout_ms(self) -> int | None:
        if self._grown == self.told:
            return None
        return max((self.told_ns + GREW_INTERVAL_NS - time.monotonic_ns()) // 1_000_000 + 1, 0)

    def _read(self, fd: int) -> bool:
        """One read; whether there may be more."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.log.append(self.streams[fd], data)
            return True
        self.poll.unregister(fd)
        del self.streams[fd]
        os.close(fd)
        return False

    def _drain(self, fd: int) -> None:
        while self._read(fd):
            pass

    def _reap(self) -> None:
        """The command itself, and orphans of it that ended before it did."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self.status = status

    def _on_messages(self) -> None:
        for message in self.channel.receive():
            self._take(message.items)

    def _take(self, items: Iterable[Item]) -> None:
        for item in items:
            # Until we have reaped it nobody else can have its number, nor its group's.
            if isinstance(item, CommandSignal) and self.status is None:
                with contextlib.suppress(ProcessLookupError, PermissionError, OSError):
                    os.killpg(self.pid, item.signal)

    @property
    def _grown(self) -> tuple[int, int]:
        return self.log.size, self.log.discarded

    def _tell_growth(self) -> None:
        now = time.monotonic_ns()
        if self._grown != self.told and now - self.told_ns >= GREW_INTERVAL_NS:
            self.told_ns = now  # also when it did not go out: a daemon that does not read is asked again 20 ms later
            if self.channel.offer(Kind.COMMAND_GREW, CommandGrew(*self._grown)):
                self.told = self._grown
