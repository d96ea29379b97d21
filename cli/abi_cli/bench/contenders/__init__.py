"""Every runtime that is measured, behind one small seam.

A contender hands out its own calls (`submitter`) instead of wrapping each, so that the seam itself costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from abi_cli.bench.claims import OURS, Setup

STANDARD = ("ppe", "pool")
"""Peers that are in the standard library."""
PEERS = {
    "ppe": "concurrent.futures.ProcessPoolExecutor",
    "pool": "multiprocessing.Pool",
    "ray": "Ray",
    "dask": "Dask.distributed",
}
_CLASSES = {OURS: "Abi", "ppe": "Executor", "pool": "Pool", "ray": "Ray", "dask": "Dask", "inline": "Inline"}


class Runtime(Protocol):
    """What can be measured. One is started at most once."""

    # Where it may keep files, and for how many cores it is made.
    def __init__(self, setup: Setup) -> None: ...

    # Have `workers` ready, or on their way. Raises whatever the runtime raises.
    def start(self, workers: int) -> None: ...

    # What starts `function` with its arguments and returns a handle at once.
    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]: ...

    # Wait for all; their values in order. Raises the first failure.
    def results(self, handles: Sequence[Any]) -> list[Any]: ...

    # `function` of each item, `chunk` items to a task; the values in order.
    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]: ...

    # End the program's part alone. True if there is another part, which goes on without it.
    def leave(self) -> bool: ...

    # End everything; harmless when nothing was started or it has been called before.
    def stop(self) -> None: ...


def make(name: str, setup: Setup) -> Runtime:
    """The contender of that name. Raises KeyError for an unknown one, ImportError for one that is not installed."""
    class_name = _CLASSES[name]
    runtime: Runtime = getattr(importlib.import_module(f"{__name__}.{name}"), class_name)(setup)
    return runtime


def installed(package: str) -> Any:
    """A package that is no dependency of ours: there only if whoever asks for this peer has installed it."""
    return importlib.import_module(package)
