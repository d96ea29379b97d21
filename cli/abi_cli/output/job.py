"""A job in words: for the table of `abi jobs`, the facts of `abi show`, the line of `abi wait`."""

from __future__ import annotations

import shlex
import time

from abi.control import Object
from abi_cli.output import text

HEAD = ("ID", "NAME", "STATE", "CPUS", "TIME", "COMMAND")
_SHOWN_IN_WORDS = frozenset(
    {"id", "short", "name", "state", "end", "code", "signal", "command", "cwd", "cpus", "pid", "attempt", "why", "env",
     "submitted_at", "started_at", "ended_at", "discarded_bytes", "why_discarded"}
)  # fmt: skip


def row(job: Object) -> list[object]:
    """One line of the table under `HEAD`."""
    return [
        job["short"],
        job.get("name") or "",
        outcome(job),
        _plain(job.get("cpus")),
        _running_time(job),
        _command(job),
    ]


def outcome(job: Object) -> str:
    """The state, or how it ended: "running", "ok", "error 7", "crashed SIGKILL"."""
    end = job.get("end")
    if end is None:
        return str(job["state"])
    if end in ("error", "crashed"):
        return f"{end} {job.get('signal') or job.get('code') or ''}".rstrip()
    return str(end)


def line(job: Object) -> str:
    """One job in one line."""
    return "  ".join(text.clean(part) for part in (job["short"], outcome(job), job.get("name")) if part)


def discarded(job: Object) -> str:
    """What of its output was not kept, and why; "" when all of it was."""
    count = job.get("discarded_bytes")
    if not count:
        return ""
    why = text.clean(job.get("why_discarded") or "")
    return f"{count} bytes of its output" + (f": {why}" if why else "")


def facts(job: Object, *, env: bool) -> str:
    """All that is known, a line each; what this version does not know comes last, as it came."""
    pairs: list[tuple[str, object]] = [
        ("id", job.get("id")),
        ("name", job.get("name")),
        ("state", outcome(job) if "state" in job else None),
        ("why", job.get("why")),
        ("command", _command(job)),
        ("directory", job.get("cwd")),
        ("cpus", _plain(job.get("cpus"))),
        ("process", job.get("pid")),
        ("attempt", job.get("attempt")),
        *((name, _moment(job.get(f"{name}_at"))) for name in ("submitted", "started", "ended")),
        ("time", _running_time(job)),
        ("discarded", discarded(job)),
    ]
    pairs += [(name, value) for name, value in job.items() if name not in _SHOWN_IN_WORDS]
    if env:
        pairs += [(f"env {text.clean(name)}", value) for name, value in sorted((job.get("env") or {}).items())]
    return text.facts(pairs)


def _command(job: Object) -> str:
    return shlex.join(str(word) for word in job.get("command") or ())


def _plain(number: object) -> object:
    return f"{number:g}" if isinstance(number, int | float) else ""


def _moment(unix_seconds: object) -> object:
    return text.moment(unix_seconds) if isinstance(unix_seconds, int | float) else None


def _running_time(job: Object) -> str:
    started = job.get("started_at")
    if not isinstance(started, int | float):
        return ""
    return text.duration((job.get("ended_at") or time.time()) - started)
