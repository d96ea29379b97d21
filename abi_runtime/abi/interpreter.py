"""Which Python this is, said so that a zygote of the same can be started: executable, start-up flags, variables, path."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

from abi.wire.schema import Interpreter

VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "LC_CTYPE")
"""Beside ``PYTHON*``: what changes how an interpreter loads and reads, and cannot be set after it has started."""


def this_interpreter() -> Interpreter:
    """The running interpreter. Its flags are told by ``subprocess``, which multiprocessing relies on for the same end."""
    variables = {
        name: value for name, value in os.environ.items() if name.startswith("PYTHON") or name in VARIABLES
    }
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return Interpreter(
        executable=sys.executable,
        flags=[flag for flag in flags if flag != "-P"],  # a zygote never imports from the current directory anyway
        variables=variables,
        package_path=_package_path(),
    )


def _package_path() -> list[str]:
    """The folders that hold ``abi`` and ``abi_worker``."""
    folders = []
    for package in ("abi", "abi_worker"):
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            folder = os.path.dirname(place)
            if folder not in folders:
                folders.append(folder)
    return folders
