"""The lines of the bench, in the order in which they are measured: from what everybody pays to what breaks."""

from __future__ import annotations

import importlib

from abi_cli.bench.claims import Line

NAMES = (
    "noops",
    "arguments",
    "chunked_map",
    "sync_call",
    "deep_queue",
    "four_clients",
    "first_result",
    "idle",
    "status",
    "two_cores",
    "long_among_short",
    "many_workers",
    "kill_worker",
    "worker_death",
)


def load(name: str) -> Line:
    """The line of that name. Raises KeyError if there is none."""
    if name not in NAMES:
        raise KeyError(name)
    line: Line = importlib.import_module(f"{__name__}.{name}").LINE
    return line
