"""Daemons and commands for tests start from a process that has imported all they need: more than half of what a start
costs.

Each is a process of its own all the same: forked by the warm one, with its own arguments, environment and descriptors,
and it runs ``main`` from the beginning. How a daemon starts from nothing is for ``test_start_stop`` to see.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

DAEMON: Final = ("abid.main", "abid.start", "abid.daemon")
"""What each daemon imports. Not what only a member of a cluster does: a test looks that others do without."""
MEMBER: Final = (*DAEMON, "abid.cluster.cluster", "cryptography.x509", "sqlite3")
COMMAND: Final = ("abi_cli.main", "abi_cli.asking", "abi_cli.commands.cluster", "abi_cli.commands.network")
REQUEST_BYTES_MAX: Final = 1 << 17
DESCRIPTORS_MAX: Final = 8
PARKED_FROM: Final = 500
"""Descriptors that came wait at these numbers until those that they are to have are free."""


class Forked:
    """As ``subprocess.Popen`` for what tests need of it."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._warm = warm
        self._pidfd = os.pidfd_open(pid)
        self._end = select.poll()
        self._end.register(self._pidfd, select.POLLIN)

    def poll(self) -> int | None:
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("abid start", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._end.poll(None if timeout is None else 1000 * timeout):
            os.close(self._pidfd)
            self.returncode = self._warm.reap(self.pid)
        return self.returncode


class Warm:
    """The process that forks. It ends with this one."""

    def __init__(self, imported: Sequence[str]) -> None:
        self._turn = threading.Lock()
        """Tests start daemons in threads, and answers come in the order of the requests."""
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.system.warm import serve; serve({theirs.fileno()}, {imported!r})"
            command = [sys.executable, "-c", code]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def start(
        self, code: str, arguments: Sequence[str], environment: Mapping[str, str], descriptors: Mapping[int, int]
    ) -> Forked:
        """A process that runs ``code`` with these arguments, of which the first is its name. ``descriptors``: by the
        number that each has there, the number it has here."""
        words = {"code": code, "argv": list(arguments), "env": dict(environment), "fds": list(descriptors)}
        request = json.dumps(words).encode()
        assert len(request) < REQUEST_BYTES_MAX
        with self._turn:
            socket.send_fds(self._sock, [request], list(descriptors.values()))
            return Forked(self, int(self._sock.recv(16)))

    def reap(self, pid: int) -> int:
        """The exit code of one that has ended, as ``Popen.returncode`` has it."""
        with self._turn:
            self._sock.send(json.dumps({"reap": pid}).encode())
            return int(self._sock.recv(16))


@cache
def warm(imported: tuple[str, ...] = DAEMON) -> Warm:
    """One that has imported these, for all tests of this process."""
    return Warm(imported)


# In the warm process.


def serve(number: int, imported: Sequence[str]) -> None:
    """Fork whenever it is asked for. A child ends with its ``code`` at once: to take the interpreter apart would first
    copy each page that it shares with this one."""
    for name in imported:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests, which see that all daemons end
    with socket.socket(fileno=number) as sock:
        asked = _forked(sock)
    if asked is None:
        return
    words, descriptors = asked
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _place(words["fds"], descriptors)
    os.environ.clear()
    os.environ.update(words["env"])
    sys.argv = words["argv"]
    try:
        exec(words["code"], {"__name__": "__main__"})
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)


def _forked(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """In each child, what it is to do. In the warm process None, when nobody asks any more."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, REQUEST_BYTES_MAX, DESCRIPTORS_MAX)
        if not data:
            return None
        words = json.loads(data)
        if "reap" in words:
            sock.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(words["reap"], 0)[1]))
            continue
        if (pid := os.fork()) == 0:
            return words, descriptors
        for descriptor in descriptors:
            os.close(descriptor)
        sock.send(b"%d" % pid)


def _place(numbers: Sequence[int], descriptors: Sequence[int]) -> None:
    parked = [PARKED_FROM + number for number in range(len(descriptors))]
    for descriptor, place in zip(descriptors, parked, strict=True):
        os.dup2(descriptor, place)
        os.close(descriptor)
    for place, number in zip(parked, numbers, strict=True):
        os.dup2(place, number)
        os.close(place)
