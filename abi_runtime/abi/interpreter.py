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
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON") or name in VARIABLES}
    # A private daemon is started with our own folders in PYTHONPATH. They are told apart, or its interpreter would not
    # be taken for its program's, and each would have a zygote.
    ours = _folders_of("abi", "abid", "abi_worker")
    path = [folder for folder in variables.pop("PYTHONPATH", "").split(os.pathsep) if folder and folder not in ours]
    if path:
        variables["PYTHONPATH"] = os.pathsep.join(path)
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return Interpreter(
        executable=sys.executable,
        flags=[flag for flag in flags if flag != "-P"],  # a zygote never imports from the current directory anyway
        variables=variables,
        package_path=_folders_of("abi", "abi_worker"),
    )


def _folders_of(*packages: str) -> list[str]:
    """The folders that hold these packages."""
    folders = []
    for package in packages:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            folder = os.path.dirname(place)
            if folder not in folders:
                folders.append(folder)
    return folders
