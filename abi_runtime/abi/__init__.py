"""abi: the library a program imports.

    @abi.remote
    def square(x: int) -> int: return x * x

    print(abi.get([square.remote(x) for x in range(10)]))

Importing it loads nothing else: each name comes with its first use (PEP 562), since a program that only imports a
module full of remote functions should not pay for running any.
"""

from __future__ import annotations

from abi.version import __version__

TYPE_CHECKING = False  # typing itself costs `abi status` several milliseconds; checkers know this name by heart

if TYPE_CHECKING:
    from typing import Any

    from abi import errors
    from abi.calls import Gathered, cancel, gather, get, put, wait
    from abi.context import TaskInfo, current_task
    from abi.mapping import map  # noqa: A004  as the built-in, elsewhere
    from abi.program import init, is_initialized, shutdown
    from abi.ref import Ref
    from abi.remote_function import RemoteFunction, remote

_MODULES = {
    "Gathered": "calls",
    "Ref": "ref",
    "RemoteFunction": "remote_function",
    "TaskInfo": "context",
    "cancel": "calls",
    "current_task": "context",
    "gather": "calls",
    "get": "calls",
    "init": "program",
    "is_initialized": "program",
    "map": "mapping",
    "put": "calls",
    "remote": "remote_function",
    "shutdown": "program",
    "wait": "calls",
}

__all__ = [
    "Gathered",
    "Ref",
    "RemoteFunction",
    "TaskInfo",
    "__version__",
    "cancel",
    "current_task",
    "errors",
    "gather",
    "get",
    "init",
    "is_initialized",
    "map",
    "put",
    "remote",
    "shutdown",
    "wait",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("errors", "network"):
        return import_module(f"abi.{name}")
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'abi' has no attribute {name!r}")
    from abi.guard import uninterrupted

    with uninterrupted():  # see ``abi.wire.codec``
        found = getattr(import_module(f"abi.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
