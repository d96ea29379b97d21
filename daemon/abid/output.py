"""What tasks print, cut into whole lines: none lost, none merged, each with its task.

Bytes come from two sides, the daemon's own reads of a worker's pipes while a task runs and the worker's drain after it
(``Printed``); both end up here in the order in which they were written. A line that no newline ends waits for its rest,
at most until its task ends or it grows past ``LINE_BYTES_MAX``.
"""

from __future__ import annotations

from collections import deque

STDOUT, STDERR = 1, 2
LINE_BYTES_MAX = 64 * 1024
"""A longer line is passed on in pieces: a progress bar without newlines must not grow in our memory."""
TAIL_LINES = 20
TAIL_BYTES_MAX = 8 * 1024


class Lines:
    """The unfinished lines of one worker's running task, and the last of what it said on stderr."""

    def __init__(self) -> None:
        self._partial: dict[tuple[int, int], bytes] = {}
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._tail_seq = 0

    def feed(self, seq: int, stream: int, data: bytes) -> bytes:
        """The lines that are whole now, each with its newline; possibly none."""
        key = (seq, stream)
        data = self._partial.pop(key, b"") + data
        end = data.rfind(b"\n") + 1
        whole, rest = data[:end], data[end:]
        if len(rest) > LINE_BYTES_MAX:
            whole, rest = data + b"\n", b""
        if rest:
            self._partial[key] = rest
        if stream == STDERR and whole:
            self._remember(seq, whole)
        return whole

    def finish(self, seq: int) -> list[tuple[int, bytes]]:
        """The task ended: what it left without a newline, as ``(stream, line)``."""
        if not self._partial:
            return []
        found = []
        for stream in (STDOUT, STDERR):
            rest = self._partial.pop((seq, stream), b"")
            if rest:
                found.append((stream, rest + b"\n"))
                if stream == STDERR:
                    self._remember(seq, rest + b"\n")
        return found

    @property
    def unfinished(self) -> bool:
        """Whether some line waits for its end."""
        return bool(self._partial)

    def tail(self, seq: int) -> str:
        """The last lines that the task wrote to stderr."""
        if seq != self._tail_seq:
            return ""
        return b"".join(self._tail)[-TAIL_BYTES_MAX:].decode("utf-8", "replace")

    def _remember(self, seq: int, lines: bytes) -> None:
        if seq != self._tail_seq:
            self._tail.clear()
            self._tail_seq = seq
        self._tail.extend(lines.splitlines(keepends=True)[-TAIL_LINES:])
