"""Who may import whom: the table of ARCHITECTURE.md, held against every module of the four packages.

The sources are parsed, not imported, so an import inside a function counts like one at the top.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["abi_runtime", "daemon", "worker", "cli"]
OURS = {"abi", "abid", "abi_worker", "abi_cli"}

# What reads a clock, touches the world or draws its own lots. Rules take `now` and a seed instead.
IO = {
    *("asyncio", "concurrent", "datetime", "fcntl", "io", "logging", "mmap", "multiprocessing", "os", "pathlib"),
    *("random", "resource", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl"),
    *("subprocess", "tempfile", "threading", "time", "uuid"),
}
# What can run code that a stranger's bytes choose. The daemon and the command line never unpickle.
UNPICKLING = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}


@dataclass(frozen=True)
class Room:
    ours: tuple[str, ...]  # modules of ours, each with all below it
    theirs: tuple[str, ...] = ()  # distributions beside the standard library
    never: Set[str] = frozenset()  # of the standard library


LEAVES = ("abi.ids", "abi.errors")
SHELL = (
    *("wire", "objects", "transport", "control", "breaker", "backoff", "ids", "errors", "spin"),
    *("addresses", "config", "paths", "mounts", "version", "interpreter", "amounts", "exits", "masking", "processes"),
)

# The most particular name that fits a module is its room.
TABLE = {
    "abi": Room(("abi",), ("msgspec", "cloudpickle", "psutil", "uvloop")),
    "abi.ids": Room(("abi.errors",)),
    "abi.errors": Room(("abi.ids",)),
    "abi.wire.schema": Room(LEAVES, ("msgspec",), IO | UNPICKLING),
    "abi.breaker": Room(LEAVES, ("msgspec",), IO | UNPICKLING),
    "abi.control": Room(("abi",)),
    "abid": Room(
        ("abid", *(f"abi.{name}" for name in SHELL)),
        ("msgspec", "uvloop", "psutil", "cryptography", "pynvml", "GPUtil"),
        UNPICKLING,
    ),
    "abid.core": Room(("abid.core", "abi.wire.schema", "abi.breaker", *LEAVES), ("msgspec",), IO | UNPICKLING),
    "abi_worker": Room(("abi_worker", "abi"), ("msgspec", "cloudpickle", "psutil")),
    "abi_cli": Room(("abi_cli", "abi"), ("msgspec", "psutil", "rich"), UNPICKLING),
}


def modules() -> dict[str, str]:
    """Every module of ours by its dotted name, with its source."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT / room).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def within(name: str, above: str) -> bool:
    return name == above or name.startswith(above + ".")


def imports(module: str, source: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of what a module imports; `from a import b` is `a.b` where that is a module of ours."""
    is_package = any(name.startswith(module + ".") for name in known)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from ((node.lineno, name.name) for name in node.names)
            case ast.ImportFrom():
                base = node.module or ""
                if node.level:
                    up = module.split(".")[: len(module.split(".")) - node.level + is_package]
                    base = ".".join([*up, base] if base else up)
                for name in node.names:
                    full = f"{base}.{name.name}"
                    yield node.lineno, full if full in known else base
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def room_of(module: str) -> Room:
    return TABLE[max((name for name in TABLE if within(module, name)), key=len)]


def is_allowed(name: str, room: Room) -> bool:
    top = name.partition(".")[0]
    if top in OURS:
        return any(within(name, above) for above in room.ours)
    if top in room.never:
        return False
    return top in sys.stdlib_module_names or top in room.theirs


def violations(sources: dict[str, str]) -> list[str]:
    return [
        f"{module}:{line} imports {name}"
        for module, source in sources.items()
        for line, name in imports(module, source, set(sources))
        if not is_allowed(name, room_of(module))
    ]


def test_every_import_is_in_the_table() -> None:
    assert violations(modules()) == []


PLANTED = [
    ("abid.core.planted", "import asyncio"),
    ("abid.core.planted", "def late():\n    from time import monotonic"),
    ("abid.core.planted", "from abid import node"),
    ("abid.core.planted", "from .. import node"),
    ("abid.core.planted", "from abi.wire import frames"),
    ("abid.planted", "import abi"),
    ("abid.planted", "from abi.session import Session"),
    ("abid.planted", "import cloudpickle"),
    ("abid.planted", "import abi_worker.loop"),
    ("abi.planted", "from abid.core import tasks"),
    ("abi.planted", "import importlib\nimportlib.import_module('abid.node')"),
    ("abi.control.planted", "import msgspec"),
    ("abi.wire.schema", "from abi.wire import codec"),
    ("abi_worker.planted", "import abid"),
    ("abi_cli.planted", "import abid.main"),
    ("abi_cli.planted", "import requests"),
]


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_a_planted_violation_is_seen(module: str, source: str) -> None:
    around = {"abid.node": "", "abid.core": "", "abid.core.tasks": "", "abi.wire.frames": "", "abi.wire.codec": ""}
    assert len(violations({**around, module: source})) == 1


def test_what_the_table_allows_is_allowed() -> None:
    sources = {
        "abi.ids": "import os",
        "abi.wire.schema": "from typing import Any\nimport msgspec\nfrom abi import ids",
        "abid.core.queues": "from collections import deque\nfrom abi.wire import schema\nfrom . import tasks",
        "abid.core.tasks": "import msgspec, heapq",
        "abid.node": "import asyncio, uvloop\nfrom abid.core import queues\nfrom abi.wire import schema",
        "abi_worker.loop": "import cloudpickle, pickle\nimport abi",
    }
    assert violations(sources) == []


def test_abi_and_its_control_load_nothing_but_the_standard_library() -> None:
    """`abi status` starts a Python each time: what it imports is what its user waits for."""
    code = "import sys, abi, abi.control; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"asyncio", "cloudpickle", "msgspec", "psutil", "rich", "uvloop"}
    assert sorted(heavy & set(loaded)) == []
