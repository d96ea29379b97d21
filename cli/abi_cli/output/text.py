"""Answers for people: tables, durations and sizes, and nothing that a terminal would obey.

Names, commands and reasons come from whoever submitted. A terminal takes orders from
control characters, so they are taken out wherever such text is shown; the output of a job
itself, streamed to whoever asked for it, is not touched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from abi.errors import AbiError, Busy

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
CUT = "…"


def clean(value: object) -> str:
    """One line of printable characters; breaks and tabs become spaces, the rest goes."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(" " if char in "\n\r\t" else char for char in text if char in "\n\r\t" or char.isprintable())


def write_error(error: AbiError) -> None:
    """Print an error and what to do about it on standard error."""
    print(f"abi: {clean(error.message)}", file=sys.stderr)
    if isinstance(error, Busy) and error.retry_after_ms:
        print(f"     try again after {error.retry_after_ms} ms", file=sys.stderr)
    if error.hint:
        print(f"     {clean(error.hint)}", file=sys.stderr)


def note(sentence: str) -> None:
    """Print a remark on standard error, away from the answer."""
    print(f"abi: {sentence}", file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; on a terminal, lines end at its edge."""
    cells = [list(head)] + [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    edge = _terminal_width()
    return "\n".join(line if len(line) <= edge else line[: edge - 1] + CUT for line in lines)


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Lines of a name and what it is; the empty ones are left out."""
    shown = [(name, clean(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


def duration(seconds: float) -> str:
    """The two largest units of a time span, such as "3 h 12 min"; under a minute "4.2 s"."""
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves one digit before the point."""
    if count < 1024:
        return f"{count:.0f} B"
    value, power = float(count), 0
    while value >= 1024 and power < len(_UNITS):
        value, power = value / 1024, power + 1
    return f"{value:.1f} {_UNITS[power - 1]}"


def moment(unix_seconds: float) -> str:
    """A point in time on this machine's clock, with the name of its zone."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(unix_seconds)).rstrip()


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(1).columns if os.isatty(1) else sys.maxsize
    except OSError:
        return sys.maxsize
