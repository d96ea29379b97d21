"""`abi status`: is a daemon there, and what is it doing."""

from __future__ import annotations

from types import SimpleNamespace

from abi import exits
from abi.control import Object, connect
from abi_cli.output import json, text

SUMMARY = "Show the daemon and what it is doing; exit code 69 if there is none."


def run(arguments: SimpleNamespace) -> int:
    """Print facts, or the daemon's own object."""
    with connect() as control:
        status = control.request("status")
    if arguments.json:
        json.write(status)
    else:
        print(_as_text(status))
    return exits.OK


def _as_text(status: Object) -> str:
    get = status.get
    up = text.duration(get("uptime_s") or 0)
    lag = get("loop_lag_ms_p99")
    return text.facts(
        [
            ("abid", f"{get('version')}, {get('state')}, up {up}"),
            ("host", f"{get('host')} (node {get('node')})"),
            ("pid", get("pid")),
            ("sessions", str(get("sessions", 0))),
            *((name, _counts(get(name) or {})) for name in ("workers", "tasks", "jobs")),
            *((name, _free(name, amount)) for name, amount in _resources(get("resources") or {})),
            ("loop lag", f"{lag:.1f} ms (p99)" if isinstance(lag, int | float) else ""),
            ("runtime", get("runtime_dir")),
            ("state", get("state_dir")),
            ("config", get("config_file")),
        ]
    )


def _counts(counts: Object) -> str:
    return ", ".join(f"{number} {word}" for word, number in counts.items())


def _resources(resources: Object) -> list[tuple[str, object]]:
    """The node's own, then the custom ones, each by its name."""
    own = [(name, amount) for name, amount in resources.items() if name != "custom"]
    return own + [(text.clean(name), amount) for name, amount in (resources.get("custom") or {}).items()]


def _free(name: str, amount: object) -> str:
    """ "1.5 of 2 free"; whatever is not counted so, as it came; "" for none."""
    if not isinstance(amount, dict) or "total" not in amount:
        return str(amount) if amount else ""
    total = float(amount["total"])
    free = float(amount.get("free", total))
    if name == "memory":
        return f"{text.size(free)} of {text.size(total)} free"
    return f"{free:g} of {total:g} free"
