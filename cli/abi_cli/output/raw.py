"""Bytes to our own standard output or error: all of them.

Python's own streams lose some. With PYTHONUNBUFFERED, as images like to set it, they are bare files whose write may
take a part only and says so in a number that nobody looks at; and where somebody made the terminal or pipe
non-blocking, a full one raises in the midst of a flush.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def write_all(stream: TextIO | None, data: bytes) -> None:
    """Write `data` behind what was printed on `stream`; nothing if we were started with it closed."""
    if stream is None:
        return
    stream.flush()
    try:
        fd = stream.fileno()
    except OSError:  # a test's stream, which is no file
        stream.buffer.write(data)
        return
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select([], [fd], [])
