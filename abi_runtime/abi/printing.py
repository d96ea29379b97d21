"""What tasks print, in the program that submitted them: each line with the name and id of its task."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

from abi import ids
from abi.wire.schema import Output

_STREAMS: Final = {1: "stdout", 2: "stderr"}


def print_lines(prefix: bytes, output: Output) -> None:
    """Whole lines, in one write. Errors of the program's own stream (closed, replaced, full) are nobody's here."""
    stream = getattr(sys, _STREAMS.get(output.stream, "stderr"), None)
    if stream is None:
        return
    short = ids.short(ids.task_id(prefix, output.seq))
    label = f"({output.name} {short}) "
    text = output.text.decode("utf-8", "replace").removesuffix("\n")
    # Only "\n" ends a line: a task may print "\r" or form feeds as parts of one.
    lines = "".join(f"{label}{line}\n" for line in text.split("\n"))
    with contextlib.suppress(Exception):
        try:
            stream.write(lines)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(lines.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
