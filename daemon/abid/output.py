"""What tasks print, cut into whole lines: none lost, none merged, each with its task.

Bytes come from two sides, the daemon's own reads of a worker's pipes while a task runs and the worker's drain after it
(``Printed``); both end up here in the order in which they were written. A line that no newline ends waits for its rest,
at most until its task ends or it grows past ``LINE_BYTES_MAX``: then its pieces are lines, all but the first marked.
"""

from __future__ import annotations

from collections import deque

STDOUT, STDERR = 1, 2
LINE_BYTES_MAX = 64 * 1024
"""A longer line is passed on in pieces: a progress bar without newlines must not grow in our memory."""
CONTINUED = "… ".encode()
"""What a piece that goes on a line begins with."""
TAIL_LINES = 20
TAIL_BYTES_MAX = 8 * 1024


class Lines:
    """The unfinished lines of one worker's running task, and the last of what it said on stderr."""

    def __init__(self) -> None:
        self._partial: dict[tuple[int, int], bytes] = {}
        self._cut: set[tuple[int, int]] = set()
        """Those whose unfinished line has been passed on in part. The part that is left is never empty, so a newline
        behind it makes no line that nobody printed."""
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._tail_seq = 0

    def feed(self, seq: int, stream: int, data: bytes) -> bytes:
        """The lines that are whole now, each with its newline; possibly none."""
        key = (seq, stream)
        data = self._partial.pop(key, b"") + data
        if key in self._cut or has_long_line(data):
            whole, rest = self._cut_long(key, data)
        else:
            end = data.rfind(b"\n") + 1
            whole, rest = data[:end], data[end:]
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
            key = (seq, stream)
            rest = self._partial.pop(key, b"")
            if rest:
                line = self._mark(key) + rest + b"\n"
                found.append((stream, line))
                if stream == STDERR:
                    self._remember(seq, line)
            self._cut.discard(key)
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

    def _cut_long(self, key: tuple[int, int], data: bytes) -> tuple[bytes, bytes]:
        """The lines that are whole now, and the rest, where some line is longer than ``LINE_BYTES_MAX``."""
        passed: list[bytes] = []
        *ended, last = data.split(b"\n")
        for line in ended:
            rest = self._pass_pieces(key, line, passed)
            passed.append(self._mark(key) + rest)
            self._cut.discard(key)
        rest = self._pass_pieces(key, last, passed)
        return b"".join(piece + b"\n" for piece in passed), rest

    def _pass_pieces(self, key: tuple[int, int], line: bytes, passed: list[bytes]) -> bytes:
        """All but the last ``LINE_BYTES_MAX`` bytes at most, in pieces; what is left."""
        at = 0
        while len(line) - at > LINE_BYTES_MAX:
            end = at + LINE_BYTES_MAX
            while end > at + LINE_BYTES_MAX - 3 and line[end] & 0xC0 == 0x80:  # not in the midst of a letter
                end -= 1
            passed.append(self._mark(key) + line[at:end])
            self._cut.add(key)
            at = end
        return line[at:]

    def _mark(self, key: tuple[int, int]) -> bytes:
        return CONTINUED if key in self._cut else b""

    def _remember(self, seq: int, lines: bytes) -> None:
        if seq != self._tail_seq:
            self._tail.clear()
            self._tail_seq = seq
        self._tail.extend(lines.splitlines(keepends=True)[-TAIL_LINES:])


def has_long_line(data: bytes) -> bool:
    """Whether a line in it, or the rest behind the last, is longer than ``LINE_BYTES_MAX``: one search each so many."""
    at = 0
    while len(data) - at > LINE_BYTES_MAX:
        at = data.rfind(b"\n", at, at + LINE_BYTES_MAX + 1) + 1
        if at == 0:
            return True
    return False
