"""One measurement, in this process: `python -m abi_cli.bench.drive ORDER`, ORDER being a JSON object (see `Order`).

The process gathers everything it starts below itself, asks for SIGTERM should the bench die, and ends what is left when
it is done. What it has to say goes into a file, since runtimes print what they like on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass

from abi_cli.bench import loopback, procs
from abi_cli.bench.claims import Setup
from abi_cli.bench.contenders import Runtime, make
from abi_cli.bench.lines import load

PATIENCE_S = 5.0
# What multiprocessing ends together with the program: which we still are, so these are not left behind by anybody.
SERVANTS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@dataclass(frozen=True)
class Order:
    """What to measure. `isolated`: only in a network namespace that holds nothing but loopback."""

    line: str
    contender: str
    cores: int
    directory: str
    answer: str
    parent: int
    isolated: bool = False
    scale: float = 1.0

    def to_json(self) -> str:
        """For the command line of the process that carries it out."""
        return json.dumps(asdict(self))


def main(order: Order) -> int:
    """Measure, and write `{"metrics": …, "problem": …, "left": […]}` into the file `order.answer`."""
    _end_on_sigterm()
    with procs.subreaper():
        procs.die_with_parent(order.parent)
        metrics: dict[str, float] = {}
        problem = ""
        try:
            metrics = _measure(order)
        except Exception as error:
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
        _end_servants()
        left = procs.end_descendants(PATIENCE_S)
    with open(order.answer, "w", encoding="utf-8") as file:
        json.dump({"metrics": metrics, "problem": problem, "left": left}, file)
    return 0


def _measure(order: Order) -> dict[str, float]:
    if order.isolated:
        loopback.enter()
    setup = Setup(order.cores, order.directory, order.scale)
    runtime: Runtime = make(order.contender, setup)
    try:
        return load(order.line).measure(runtime, setup)
    finally:
        runtime.stop()


def _end_servants() -> None:
    for pid in procs.descendants(os.getpid()):
        if any(servant in procs.command_line(pid) for servant in SERVANTS):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _end_on_sigterm() -> None:
    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        procs.end_descendants(0.0)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, handler)
    # Pools end the children they forked with SIGTERM. A handler in Python would be too late for one that is just about
    # to wait for a semaphore: it would wait for ever, and the pool for it.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1]))))
