"""The daemon's log goes to stderr, in the form that its reader wants.

The journal wants priorities as prefixes (sd-daemon(3)), a person colour, a collector one JSON object a line; which it
is follows from what stderr is, unless the configuration says.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
COLOURS = {logging.DEBUG: "2", logging.INFO: "36", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class JournalFormatter(logging.Formatter):
    """``<6>words``: the journal adds time and unit itself."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class TextFormatter(logging.Formatter):
    """Time, level, words; coloured on a terminal."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if self._colour:
            level = f"\x1b[{COLOURS.get(record.levelno, '0')}m{level}\x1b[0m"
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock}.{int(record.msecs):03d} {level} {super().format(record)}"


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        words = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            words["exception"] = self.formatException(record.exc_info)
        return json.dumps(words, ensure_ascii=False)


def configure(level: str, form: str) -> None:
    """Set up logging for the daemon. ``form`` is auto, text, journal or json."""
    if form == "auto":
        form = "journal" if _is_journal() else "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    if form == "journal":
        handler.setFormatter(JournalFormatter())
    elif form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter(sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _is_journal() -> bool:
    """Whether stderr is the stream that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
