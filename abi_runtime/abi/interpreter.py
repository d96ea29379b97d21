"""Which Python this is, said so that a zygote of the same can be started: executable, start-up flags, variables,
path."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from abi.wire.schema import Interpreter

VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "LC_CTYPE")
"""Beside ``PYTHON*``: what changes how an interpreter loads and reads, and cannot be set after it has started."""


_FLAGS = (
    *("debug", "inspect", "interactive", "optimize", "dont_write_bytecode", "no_user_site", "no_site"),
    *("ignore_environment", "verbose", "bytes_warning", "quiet", "isolated", "dev_mode"),
)


def this_interpreter() -> Interpreter:
    """The running interpreter."""
    from abi.wire.schema import Interpreter

    return Interpreter(*described())


def described() -> tuple[str, list[str], dict[str, str], list[str]]:
    """Executable, flags, variables and package path: the same, for who has no time to import the schema."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON") or name in VARIABLES}
    # A private daemon is started with our own folders in PYTHONPATH. They are told apart, or its interpreter would not
    # be taken for its program's, and each would have a zygote.
    ours = _folders_of("abi", "abid", "abi_worker")
    path = [folder for folder in variables.pop("PYTHONPATH", "").split(os.pathsep) if folder and folder not in ours]
    if path:
        variables["PYTHONPATH"] = os.pathsep.join(path)
    return sys.executable, _flags(), variables, _folders_of("abi", "abi_worker")


def _flags() -> list[str]:
    """Start-up options, as ``subprocess`` knows them, on whom multiprocessing relies for the same end."""
    if not (sys.warnoptions or sys._xoptions or any(getattr(sys.flags, name) for name in _FLAGS)):
        return []  # the ordinary case, which spares an import of ten milliseconds
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [flag for flag in flags if flag != "-P"]  # a zygote never imports from the current directory anyway


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
