"""Bytes to our own standard output or error: all of them.

With PYTHONUNBUFFERED, as images like to set it, these streams are bare files, and a write to one may take only a part
(a signal came, the pipe was full) and says so in a number that `print` does not look at.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, TextIO


def write_all(stream: TextIO | None, data: bytes) -> None:
    """Write `data` behind what was printed on `stream`, and flush; nothing if we were started with it closed."""
    if stream is None:
        return
    stream.flush()
    sink = stream.buffer
    rest = memoryview(data)
    while rest:
        rest = rest[_write(sink, rest) :]
    sink.flush()


def _write(sink: BinaryIO, data: memoryview) -> int:
    """How much it took; waits where somebody made our terminal or pipe non-blocking and it is full."""
    written: int | None
    try:
        written = sink.write(data)
    except BlockingIOError as full:
        written = full.characters_written
    if not written:
        select.select([], [sink], [])
    return written or 0
