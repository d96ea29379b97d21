"""Starts a command the way a shell would: a session of its own, default signals, nothing on its stdin.

By hand rather than by ``subprocess``, whose import costs every supervisor a megabyte. The supervisor has one thread, so
Python may run between fork and exec. What goes wrong there comes back through a pipe that a successful exec closes.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NoReturn

from abi.wire.schema import Command
from abi_worker import birth, linux

NOT_FOUND: Final = 127
NOT_RUN: Final = 126
"""What shells exit with for a command that is not there, and for one that is and cannot be run."""
_REPORT_BYTES_MAX: Final = 64 * 1024


class CommandFailed(Exception):
    """It could not be started at all; the text says what is wrong and with what."""

    def __init__(self, text: str, code: int = NOT_RUN) -> None:
        super().__init__(text)
        self.code = code


def start(command: Command, stdout: int, stderr: int) -> int:
    """The process, which is also its process group. Raises CommandFailed, or OSError when there is no process to be
    had."""
    if not command.argv:
        raise CommandFailed("no command was given")
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _become_command(command, parent, stdout, stderr, report_write)
    finally:
        os.close(report_write)
    try:
        report = os.read(report_read, _REPORT_BYTES_MAX)
    finally:
        os.close(report_read)
    if report:
        _, status = os.waitpid(pid, 0)
        raise CommandFailed(report.decode(errors="replace"), os.waitstatus_to_exitcode(status))
    return pid


def _become_command(command: Command, parent: int, stdout: int, stderr: int, report: int) -> NoReturn:
    """Runs in the child; leaves it by exec or by _exit."""
    try:
        os.setsid()
        linux.die_with(parent)
        birth.restore_signals(pipes_too=True)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.chdir(command.directory)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        os.write(report, f"its directory {os.fsdecode(command.directory)!r}: {why}".encode(errors="replace"))
        os._exit(NOT_RUN)
    try:
        os.execvpe(command.argv[0], command.argv, command.environment)
    except (OSError, ValueError) as error:
        os.write(report, _why(os.fsdecode(command.argv[0]), command.environment, error).encode(errors="replace"))
        os._exit(NOT_FOUND if getattr(error, "errno", None) == errno.ENOENT else NOT_RUN)
    os._exit(NOT_RUN)


def _why(name: str, environment: dict[bytes, bytes], error: OSError | ValueError) -> str:
    code = getattr(error, "errno", None)
    if code == errno.ENOENT and "/" not in name:
        return f"{name!r} is not found in PATH ({os.fsdecode(environment.get(b'PATH', os.fsencode(os.defpath)))})"
    if code == errno.ENOENT:
        return f"{name!r} does not exist, or the interpreter in its first line does not"
    if code == errno.EACCES:
        return f"{name!r} is not executable"
    if code == errno.ENOEXEC:
        return f"{name!r} is neither a program nor a script with an interpreter (#!) in its first line"
    return f"{name!r}: {getattr(error, 'strerror', None) or error}"
