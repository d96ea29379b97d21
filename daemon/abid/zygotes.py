"""Zygotes: one per interpreter, from which workers are forked in two milliseconds.

A zygote and its workers hold the estate lock (see ``lock``). When a zygote dies its workers die with it (the kernel
sees to that), and what those leave behind comes to this process, a child subreaper, which ends it: ``sweep``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from abi.processes import children, signal_name
from abi.wire.codec import decode_items, decoders, encode_items
from abi.wire.frames import Frame
from abi.wire.names import shown
from abi.wire.schema import Exited, Fork, Forked, Interpreter, Kind
from abid.channel import Channel
from abid.zygote_process import ZygoteProcess

log = logging.getLogger(__name__)

SWEEP_AGAIN_S = 0.02

_decoders = decoders((Kind.FORKED, Kind.EXITED, Kind.READY))


def key_of(interpreter: Interpreter) -> tuple[Any, ...]:
    """What makes two programs share a zygote: the same Python, seen from the same environment, started alike."""
    folder = os.path.dirname(interpreter.executable)
    flags = tuple(flag for flag in interpreter.flags if flag != "-P")  # a zygote never runs from the current directory
    return (
        folder,
        os.path.realpath(interpreter.executable),
        flags,
        tuple(sorted(interpreter.variables.items())),
        tuple(interpreter.package_path),
    )


class Zygote:
    """A zygote on the loop. ``on_forked(worker, pid, pidfd)``, ``on_exited(worker, status)``, ``on_gone(zygote,
    why)``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interpreter: Interpreter,
        process: ZygoteProcess,
        on_forked: Callable[[int, int, int], None],
        on_exited: Callable[[int, int], None],
        on_gone: Callable[[Zygote, str], None],
    ) -> None:
        self.interpreter = interpreter
        self.process = process
        self.pid = process.pid
        self.is_broken = False
        """It ended by itself, or hung, before it could fork a worker of Python: the next one would do the same."""
        self.forked_s = loop.time()
        """When it last forked a worker."""
        self._ready = False
        self._killed_because = ""
        self.workers: set[int] = set()
        self._loop = loop
        self._on_forked = on_forked
        self._on_exited = on_exited
        self._on_gone = on_gone
        self._pidfd = os.pidfd_open(self.pid)
        self._gone = False
        self.channel = Channel(loop, process.sock, self._on_frame, self._on_channel_closed)
        loop.add_reader(self._pidfd, self._on_death)

    def fork(self, worker: int, command: bool, fds: Sequence[int]) -> None:
        self.workers.add(worker)
        self.channel.send(Kind.FORK, encode_items([Fork(worker, command)]), fds)

    def kill(self, why: str) -> None:
        """For one that hangs: its workers die with it, and ``on_gone`` follows."""
        self._killed_because = self._killed_because or why
        self.process.kill()

    def close(self) -> None:
        """Ask it to end everything below it and go: closing our end is the word for that."""
        self.channel.close("")

    def _on_frame(self, frame: Frame, fds: list[int]) -> None:
        for item in decode_items(_decoders, frame.kind, frame.payload):
            match item:
                case Forked(worker=worker, pid=pid):
                    self.forked_s = self._loop.time()
                    self._on_forked(worker, pid, fds.pop(0))
                case Exited(worker=worker, status=status):
                    self.workers.discard(worker)
                    self._on_exited(worker, status)
                case _:
                    self._ready = True
                    log.debug("zygote %d is ready", self.pid)

    def _on_channel_closed(self, why: str) -> None:
        if why:
            log.error("zygote %d: %s", self.pid, why)
            self.kill(why)

    def _on_death(self) -> None:
        if self._gone:
            return
        self._gone = True
        self.channel.read_rest()  # what it said before it died: workers that had ended already
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self.process.wait()
        self.channel.close("")
        tail = self.process.stderr_tail()
        self.process.close()
        why = f"was killed by {signal_name(-status)}" if status < 0 else f"ended with exit code {status}"
        why = self._killed_because or f"{shown(self.interpreter.executable)} {why}"
        self.is_broken = not self._ready and (status >= 0 or bool(self._killed_because))
        self._on_gone(self, f"{why}\n{tail}" if tail else why)


def sweep(known: set[int]) -> int:
    """Kill and reap every child of this process that is not in ``known``; how many were there.

    Called again until it finds none: what a killed child leaves behind comes to us only then.
    """
    found = 0
    for pid in children():
        if pid in known:
            continue
        found += 1
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, os.WNOHANG)
        except (ProcessLookupError, ChildProcessError):
            continue
    return found
