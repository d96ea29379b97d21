"""A program's session: it ends with the process that registered it, not with its connection.

The pidfd of the program says when it is gone. A connection that is lost before that may come back within
``session_grace_ms``: the tasks go on, their ends wait in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import TYPE_CHECKING

from abi.errors import Denied, ProtocolError
from abi.spin import Spin
from abi.wire.codec import encode_items
from abi.wire.frames import Frame
from abi.wire.names import is_name, shown
from abi.wire.schema import ROOT, Kind, Output, Program
from abid.channel import Channel
from abid.submitters import Submitter

if TYPE_CHECKING:
    from abid.core.session import Session
    from abid.node import Node

log = logging.getLogger(__name__)

LOOK_NS = 400_000
"""A caller whose next word takes longer is slept for: meanwhile nobody else is heard."""

GOODBYE_BYTES = 8 * 1024 * 1024
"""What the kernel is asked to keep for a program that does not read when its daemon goes; it may be stopped, or busy.
Results that it does not find there are computed again, or lost (``max_retries=0``)."""
OUTPUT_QUEUED_BYTES_MAX = 1024 * 1024
"""Output that waits for a program before its tasks' prints block. Tasks that end bring what lay in their pipes."""


class ProgramSession:
    """One program: its core session, its connection (or none for a while), its world."""

    def __init__(
        self, node: Node, core: Session, pid: int, pidfd: int, program: Program, namespace: str, prefix: bytes
    ) -> None:
        self.node = node
        self.core = core
        self.program = program
        self.namespace = namespace
        self.prefix = prefix
        self.pid = pid
        self.token = secrets.token_hex(16)
        self.port = Submitter(node, core, ROOT)
        self.output_queued_bytes = 0
        self._spin: Spin
        self._answered_ns = 0
        self._unnoted: list[Callable[[], None]] = []
        self._grace: asyncio.TimerHandle | None = None
        self._ended = False
        self._is_leaving = False
        self._pidfd = pidfd
        node.loop.add_reader(self._pidfd, self._on_program_gone)

    def __repr__(self) -> str:
        return f"<session {self.prefix.hex()} of {shown(self.program.name)}, pid {self.pid}>"

    def attach(self, channel: Channel) -> None:
        """This connection speaks for the program from now on; one that spoke before is closed."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        old, self.port.channel = self.port.channel, channel
        if old is not None:
            old.close("")
        self._spin = channel.spin(LOOK_NS)
        self._answered_ns = 0
        channel.on_frame = self.on_frame
        channel.on_drained = self._on_drained
        channel.after_read = self.node.after_read

    def look_for_more(self) -> None:
        """The one answer that it waited for is sent, and nothing else runs: a caller of one task after the other has
        its next word close. See that this processor does not halt meanwhile."""
        if self.port.channel is None:
            return
        if self._spin.is_worth_it:
            self._spin.look()
        else:
            self._answered_ns = monotonic_ns()

    def on_frame(self, frame: Frame, fds: list[int]) -> None:
        if self._answered_ns:
            self._spin.slept(monotonic_ns() - self._answered_ns)
            self._answered_ns = 0
        if frame.kind == Kind.BYE:
            self.end("the program said goodbye")
            return
        self.port.on_frame(frame, fds)

    def on_channel_closed(self, channel: Channel, why: str) -> None:
        if self.port.channel is not channel or self._ended:
            return
        self.port.channel = None
        log.info("%r: connection closed%s", self, f": {why}" if why else "")
        grace_s = self.node.config.integer("tasks.session_grace_ms") / 1000
        self._grace = self.node.loop.call_later(grace_s, self.end, "its connection did not come back")

    def print_lines(self, seq: int, name: str, stream: int, text: bytes) -> None:
        self.output_queued_bytes += len(text)
        self.port.say(Kind.OUTPUT, Output(seq, name, stream, text))
        if self.output_is_stuck():
            self.port.count_unread(len(text))
        self.node.pump_later(self)

    def output_is_stuck(self) -> bool:
        return self.output_queued_bytes > OUTPUT_QUEUED_BYTES_MAX

    def _on_drained(self) -> None:
        self.port.pump()
        self.on_progress()

    def on_progress(self) -> None:
        """After the queue was pumped: what waited for it to be empty."""
        if self.port.outgoing:
            return
        if self._is_leaving:
            self._leave()
            return
        self.output_queued_bytes = 0
        if self._unnoted and self.has_read_all():
            start, self._unnoted = self._unnoted, []
            for dispatch in start:
                dispatch()

    def has_read_all(self) -> bool:
        """Whether the kernel holds all that was said to the program, so that it survives this daemon."""
        channel = self.port.channel
        return channel is not None and not self.port.outgoing and channel.queued == 0

    def when_noted(self, dispatch: Callable[[], None]) -> None:
        """A task with ``max_retries=0`` starts only after the program's side holds the note that it did."""
        if self.has_read_all():
            dispatch()
        else:
            self._unnoted.append(dispatch)

    def say_goodbye(self) -> None:
        """The daemon is about to go: the program keeps what is unfinished and looks for the next one. The connection
        is closed when the last end was said, and BYE."""
        channel = self.port.channel
        if channel is None:
            return
        self._is_leaving = True
        channel.widen(GOODBYE_BYTES)
        self.port.pump()
        self.on_progress()

    def _leave(self) -> None:
        channel = self.port.channel
        if channel is not None:
            channel.send(Kind.BYE, encode_items([]))
            channel.close_when_sent()

    def _on_program_gone(self) -> None:
        self.end("the program is gone")

    def end(self, why: str) -> None:
        """The session is over: its work is cancelled, its workers end. Idempotent."""
        if self._ended:
            return
        self._ended = True
        log.info("%r ends: %s", self, why)
        if self._grace is not None:
            self._grace.cancel()
        self.node.loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        channel, self.port.channel = self.port.channel, None
        self.port.outgoing.clear()
        if channel is not None:
            channel.close("")
        self.node.forget_session(self)


def watch_program(pid: int) -> int:
    """A pidfd of the program. Raises Denied for one whose end we could not see."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise Denied(
            f"your process (pid {pid} as this daemon sees it) cannot be watched: {error.strerror}",
            hint="a program in another pid namespace, such as a container, needs a daemon of its own there",
        ) from None


def check_program(program: Program | None) -> Program:
    """Raises ProtocolError if a session's greeting does not say what its workers need."""
    if program is None:
        raise ProtocolError("a session's greeting must describe its program")
    for name in _names_in(program):
        if not is_name(name):
            raise ProtocolError(f"{name!r:.80} in a session's greeting can be no name of a file or variable")
    if not os.path.isabs(program.interpreter.executable):
        raise ProtocolError(f"the interpreter {program.interpreter.executable!r} is not an absolute path")
    return program


def _names_in(program: Program) -> Iterator[str]:
    interpreter = program.interpreter
    yield from (interpreter.executable, program.directory, program.main_path, program.name)
    for names in (program.sys_path, interpreter.flags, interpreter.package_path):
        yield from names
    for variables in (program.environment, interpreter.variables):
        yield from variables
        yield from variables.values()
