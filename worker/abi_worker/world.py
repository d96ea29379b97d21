"""The submitter's world, taken on after the fork: what imports, opens and prints there does so here.

Nothing of it was in the zygote, so nothing is stale: a session has workers of its own, forked after its program began.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posix
import sys
import time
import types
from collections.abc import Callable
from typing import Any, Final

from abi.wire.schema import UNITS, Options, Setup

THREADS_VARIABLE: Final = "OMP_NUM_THREADS"
_threads = ""
"""What we wrote there last."""


class Directory:
    """The directory that every call begins in. A call that went elsewhere is noticed by ``moved``, not by asking the
    kernel after each one (1 µs): ``os.chdir`` and ``os.fchdir`` are wrapped. What C code does unasked is not
    noticed."""

    def __init__(self) -> None:
        self.moved = False
        self._fd = -1
        for name in ("chdir", "fchdir"):
            wrapped = self._noting(getattr(posix, name))
            setattr(os, name, wrapped)
            setattr(posix, name, wrapped)

    def _noting(self, function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def change(*args: Any, **kwargs: Any) -> None:
            function(*args, **kwargs)
            self.moved = True

        return change

    def enter(self, path: str) -> str:
        """Makes ``path`` the directory of all calls; ``/`` when that cannot be, and then why, in words."""
        problem = ""
        try:
            os.chdir(path)
        except (OSError, ValueError) as error:
            os.chdir("/")
            problem = f"abi: the program's directory {path!r} cannot be entered here ({error}); tasks run in /"
        self._fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.moved = False
        return problem

    def restore(self) -> None:
        """Back to where calls begin. Where a task closed our descriptor the next call stays where that one went."""
        with contextlib.suppress(OSError):
            os.fchdir(self._fd)
        self.moved = False


def enter_world(setup: Setup, directory: Directory) -> None:
    """Environment, directory, import path and ``__main__`` of the program."""
    set_environment(setup)
    problem = directory.enter(setup.directory)
    sys.path[:] = setup.sys_path
    sys.path_importer_cache.clear()  # importlib.invalidate_caches would import 40 ms of importlib.metadata (3.13)
    sys.argv[:] = [setup.main_path]
    sys.modules["__main__"] = _main_module(setup.main_path)
    if problem:
        print(problem, file=sys.stderr)


def set_environment(setup: Setup) -> None:
    os.environ.clear()
    os.environ.update(setup.environment)
    os.environ["ABI_SOCKET"] = setup.socket_path
    os.environ["ABI_WORKER"] = "1"
    if setup.gpu_ids:
        # CUDA and NVML number cards differently unless told; UUIDs are told apart by nobody, but order is kept.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(setup.gpu_ids)
    time.tzset()


def limit_threads(options: Options) -> Options:
    """As many threads of numerical libraries as the task may use processors, unless the user said otherwise: in the
    program's environment, or in a task. Returns the options."""
    global _threads
    if os.environ.get(THREADS_VARIABLE, _threads) == _threads:
        _threads = os.environ[THREADS_VARIABLE] = str(max(options.cpus // UNITS, 1))
    return options


def _main_module(path: str) -> types.ModuleType:
    """What ``__main__`` is here: a module with the program's file that was not run. Its functions come by value."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    if path:
        module.__file__ = path
    return module
