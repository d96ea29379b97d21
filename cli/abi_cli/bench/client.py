"""One of several programs at one daemon: warms up, waits for a word, runs no-ops, says when it began and ended."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from abi_cli.bench import work


def main(tasks: int, workers: int) -> int:
    """Says `ready 0 0`, reads a line, runs, says `span BEGIN END` in seconds of CLOCK_MONOTONIC."""
    abi: Any = importlib.import_module("abi")
    abi.init()
    noop, pause = abi.remote(work.noop), abi.remote(work.pause)
    abi.get([pause.remote(0.02) for _ in range(2 * workers)])
    abi.get([noop.remote() for _ in range(500)])
    print("ready 0 0", flush=True)
    sys.stdin.readline()
    begin = work.clock()
    abi.get([noop.remote() for _ in range(tasks)])
    print(f"span {begin} {work.clock()}", flush=True)
    abi.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
