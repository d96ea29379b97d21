"""The submitter's world, taken on after the fork: what imports, opens and prints there does so here.

Nothing of it was in the zygote, so nothing is stale: a session has workers of its own, forked after its program began.
"""

from __future__ import annotations

import os
import sys
import time
import types
from typing import Final

from abi.wire.names import to_text
from abi.wire.schema import UNITS, Options, Setup
from abi_worker.surroundings import Surroundings

THREADS_VARIABLE: Final = "OMP_NUM_THREADS"
_threads = ""
"""What we wrote there last."""


def enter_world(setup: Setup, surroundings: Surroundings) -> None:
    """Environment, directory, import path and ``__main__`` of the program."""
    set_environment(setup)
    problem = surroundings.begin(to_text(setup.directory))
    sys.path[:] = map(to_text, setup.sys_path)
    sys.path_importer_cache.clear()  # importlib.invalidate_caches would import 40 ms of importlib.metadata (3.13)
    main_path = to_text(setup.main_path)
    sys.argv[:] = [main_path]
    sys.modules["__main__"] = _main_module(main_path)
    if problem:
        print(problem, file=sys.stderr)


def set_environment(setup: Setup) -> None:
    os.environ.clear()
    os.environ.update({to_text(name): to_text(value) for name, value in setup.environment.items()})
    os.environ["ABI_SOCKET"] = to_text(setup.socket_path)
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
