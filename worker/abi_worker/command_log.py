"""The log of a command, as its supervisor writes it (see ``abi.wire.job_log``).

One write(2) a record on a descriptor with O_APPEND: a reader that sees a record's head sees, at the latest one write
later, its bytes; whoever crashes leaves whole records behind. The daemon and ``abi logs`` read the same file.
"""

from __future__ import annotations

import contextlib
import os
import time

from abi.wire.job_log import HEAD, STDERR


class CommandLog:
    """Appends to ``fd`` up to ``bytes_max`` (0: no limit). Past it, or when the disk is full, output is discarded and
    one record says so: a command must not stop because nobody can keep what it says."""

    def __init__(self, fd: int, bytes_max: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._bytes_max = bytes_max
        self._full = False

    def append(self, stream: int, data: bytes) -> None:
        if self._full:
            return
        if self._bytes_max and self.size + HEAD.size + len(data) > self._bytes_max:
            data = data[: max(self._bytes_max - self.size - HEAD.size, 0)]
            if data:
                self._write(stream, data)
            self._end(f"the log's limit of {self._bytes_max} bytes is reached")
        else:
            self._write(stream, data)

    def _write(self, stream: int, data: bytes) -> None:
        record = HEAD.pack(stream, len(data), time.time_ns()) + data
        try:
            written = os.write(self.fd, record)
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if written == len(record):
            self.size += written
            return
        # Half a record would make everything behind it unreadable.
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, self.size)
        self._end("no space is left for it")

    def _end(self, why: str) -> None:
        if not self._full:
            self._full = True
            self._write(STDERR, f"\nabi: the output from here on is discarded: {why}\n".encode())
