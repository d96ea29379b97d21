"""From a fork of the zygote to a process of its own: what both workers and supervisors do first.

Order matters: the death of the zygote is covered before anything else, and signals are blocked by the zygote across the
fork (a SIGTERM must find either the zygote's handler or the child's default, never the zygote's handler in the child).
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Collection
from typing import Final

from abi.processes import become_subreaper
from abi_worker import linux

_PYTHONS_OWN: Final = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python ignores these, in every program; the rest goes back to its default."""


def become_child(zygote: int, keep: Collection[int], name: str) -> None:
    """Leaves the zygote's session, handlers and descriptors behind. ``keep`` are the descriptors that stay open."""
    linux.die_with(zygote)
    os.setsid()
    become_subreaper()
    linux.name_process(name)
    linux.be_first_to_die()
    restore_signals()
    close_all_but(keep)
    gc.enable()


def restore_signals(*, pipes_too: bool = False) -> None:
    """Default handlers, nothing blocked, as a program finds them that was started from a shell. ``pipes_too``: what is
    executed next is not Python and wants SIGPIPE."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - (set() if pipes_too else _PYTHONS_OWN):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(keep: Collection[int]) -> None:
    """Closes every descriptor from 3 on that is not in ``keep``."""
    for fd in [int(entry) for entry in os.listdir("/proc/self/fd")]:
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):  # the descriptor that listed the directory
                os.close(fd)


def adopt_output(stdout: int, stderr: int) -> None:
    """``stdout`` and ``stderr`` become descriptors 1 and 2 and Python's streams: text, sent at each newline. The two
    stay open as well: a task may close 1 and 2.

    Text that the stream's encoding lacks is escaped, never an error: a task must not fail because of what it prints.
    """
    os.dup2(stdout, 1, inheritable=True)
    os.dup2(stderr, 2, inheritable=True)
    for fd in (stdout, stderr):
        os.set_inheritable(fd, False)
    sys.stdout = sys.__stdout__ = text_stream(1, "<stdout>")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = text_stream(2, "<stderr>")  # type: ignore[misc]
    linux.line_buffer_c_output()


def text_stream(fd: int, name: str) -> io.TextIOWrapper:
    """What ``sys.stdout`` is in a worker."""
    raw = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False))
    stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    raw.raw.name = name
    return stream
