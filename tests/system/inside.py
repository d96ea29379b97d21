"""Programs of a daemon: this very process, whose tasks are functions written inside the tests and travel by value, and
others, which may be killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import abi
from tests.system.harness import Daemon, Program

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def session(daemon: Daemon, **options: Any) -> Iterator[Daemon]:
    """This process as a program of ``daemon``, with workers of its own."""
    abi.shutdown()
    abi.init(address=str(daemon.runtime_dir), **options)
    try:
        yield daemon
    finally:
        abi.shutdown()


@contextmanager
def inside(*flags: str, **options: Any) -> Iterator[Daemon]:
    """A daemon of its own, and this process as its program."""
    daemon = Daemon(*flags, **options)
    try:
        with session(daemon):
            yield daemon
    finally:
        daemon.close()


def start(daemon: Daemon, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> Program:
    """Python with these arguments, as a program of ``daemon``; it finds it by its environment, and can import ours."""
    path = os.pathsep.join([str(ROOT), *filter(None, [daemon.environment.get("PYTHONPATH")])])
    return Program([sys.executable, *arguments], daemon.environment | {"PYTHONPATH": path} | (env or {}), **options)


def run(daemon: Daemon, *arguments: str, **options: Any) -> str:
    """What it printed; it must succeed."""
    program = start(daemon, *arguments, **options)
    try:
        code = program.wait()
        assert code == 0, program.err.decode()
        return program.out.decode()
    finally:
        program.close()
