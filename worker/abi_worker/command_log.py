"""The log of a command, as its supervisor writes it (see ``abi.wire.job_log``).

One write(2) a record on a descriptor with O_APPEND: a reader that sees a record's head sees, at the latest one write
later, its bytes; whoever crashes leaves whole records behind. The daemon and ``abi logs`` read the same file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Final

from abi.wire.job_log import HEAD, STDERR, STDOUT

NAMES: Final = {STDOUT: "stdout", STDERR: "stderr"}
RESERVE_PART: Final = 16
RESERVE_BYTES_MAX: Final = 1024 * 1024
"""stdout leaves a sixteenth of the limit, at most 1 MiB, to stderr: a command says there why it failed, and last."""


class CommandLog:
    """Appends to ``fd`` up to ``bytes_max`` (0: no limit). Past it, or when the disk is full, output is counted and
    discarded, and one record says so: a command must not stop because nobody can keep what it says."""

    def __init__(self, fd: int, bytes_max: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.discarded = 0
        """Bytes of output that were not kept."""
        self.why_discarded = ""
        self._bytes_max = bytes_max
        reserve = min(bytes_max // RESERVE_PART, RESERVE_BYTES_MAX)
        self._limits = {STDOUT: bytes_max - reserve, STDERR: bytes_max} if bytes_max else {}
        self._full: set[int] = set()
        """Streams of which nothing more is kept."""

    def append(self, stream: int, data: bytes) -> None:
        if stream in self._full:
            self.discarded += len(data)
            return
        room = max(self._limits.get(stream, sys.maxsize) - self.size - HEAD.size, 0)
        kept = data[:room]
        if kept:
            problem = self._write(stream, kept)
            if problem:
                self.discarded += len(data)
                self._end([STDOUT, STDERR], "output", problem)
                return
        if len(kept) < len(data):
            self.discarded += len(data) - len(kept)
            self._end([stream], NAMES[stream], f"jobs.log_bytes_max ({self._bytes_max} bytes) is reached")

    def remark(self, sentence: str) -> None:
        """A line of ours among what the command says. One that cannot be kept is lost: it is no output of its."""
        self._write(STDERR, f"\nabi: {sentence}\n".encode())

    def _write(self, stream: int, data: bytes) -> str:
        """Why it could not be written; "" when it was."""
        record = HEAD.pack(stream, len(data), time.time_ns()) + data
        try:
            written = os.write(self.fd, record)
        except OSError as error:
            return error.strerror or str(error)
        if written == len(record):
            self.size += written
            return ""
        # Half a record would make everything behind it unreadable.
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, self.size)
        return "no space is left for it"

    def _end(self, streams: list[int], what: str, why: str) -> None:
        self._full.update(streams)
        self.why_discarded = self.why_discarded or why
        self.remark(f"the {what} from here on is discarded: {why}")
