"""Who is measured, and under which Python; and why somebody who was asked for is not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from abi.errors import UsageError
from abi.version import __version__
from abi_cli.bench.claims import OURS
from abi_cli.bench.contenders import PEERS, STANDARD

_DISTRIBUTIONS = {"ray": "ray", "dask": "distributed"}
PROBE_S = 60.0


@dataclass(frozen=True)
class Contender:
    """`missing` says why it cannot be measured, "" if it can. `foreign`: its Python is not the one that runs us."""

    name: str
    python: str
    version: str = ""
    missing: str = ""
    foreign: bool = False
    isolated: bool = False


def ours() -> Contender:
    """We ourselves."""
    return Contender(OURS, sys.executable, __version__)


def find(names: Sequence[str], peer_python: str | None) -> list[Contender]:
    """The peers of these names. Raises `UsageError` for an unknown name, or a `peer_python` that is none."""
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise UsageError(f"no peer is called {unknown[0]!r}", hint=f"those there are: {', '.join(PEERS)}")
    python = _interpreter(peer_python)
    return [
        Contender(name, sys.executable, f"Python {platform.python_version()}")
        if name in STANDARD
        else _installed(name, python)
        for name in dict.fromkeys(names)
    ]


def parse(text: str) -> list[str]:
    """The names in `ppe,pool`; "" and `none` are no peers."""
    return [name for name in text.replace(" ", "").split(",") if name and name != "none"]


def _interpreter(named: str | None) -> str:
    if named is None:
        return sys.executable
    found = shutil.which(named)
    if found is None:
        raise UsageError(f"--peer-python {named}: there is no such program", hint="name the python of an environment")
    return os.path.abspath(found)


def _installed(name: str, python: str) -> Contender:
    distribution = _DISTRIBUTIONS[name]
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    # -P would be better, but came with 3.11: the peers may live in an older Python, so no directory of ours is current.
    asked = subprocess.run([python, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           cwd="/", timeout=PROBE_S, check=False)  # fmt: skip
    if asked.returncode:
        where = f"pip install {distribution}, or name the python of an environment that has it with --peer-python"
        return Contender(name, python, missing=f"not installed in {python}: {where}")
    return Contender(
        name, python, asked.stdout.strip(), foreign=python != os.path.abspath(sys.executable), isolated=name == "ray"
    )
