"""A program that calls as its daemon's user does, and writes down how long each call took.

    python -m tests.torture.caller      it finds its daemon by ABI_RUNTIME_DIR

Each line that it reads is a number of seconds, for which it calls: one call after the other, a little apart, and
now and then a batch. It answers each with one line of JSON (``Round``). The pauses leave the machine something: what is
to show is what a call waits for, and not how many calls two cores can do.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final, TypedDict

import abi

PAUSE_S: Final = 0.001
"""Between two calls."""
CALLS_PER_BATCH: Final = 200
BATCH: Final = 100
"""Calls in one batch."""


class Round(TypedDict):
    calls_us: list[int]
    """How long each took, in microseconds, in order."""
    batches_us: list[int]
    lost: int
    """Calls that did not bring back what was sent."""


@abi.remote
def echo(value: int) -> int:
    return value


def called(seconds: float) -> Round:
    calls: list[int] = []
    batches: list[int] = []
    lost = 0
    end = time.monotonic() + seconds
    while (begin := time.monotonic_ns()) < end * 1e9:
        lost += abi.get(echo.remote(len(calls))) != len(calls)
        calls.append((time.monotonic_ns() - begin) // 1000)
        if len(calls) % CALLS_PER_BATCH == 0:
            begin = time.monotonic_ns()
            lost += abi.get([echo.remote(number) for number in range(BATCH)]) != list(range(BATCH))
            batches.append((time.monotonic_ns() - begin) // 1000)
        time.sleep(PAUSE_S)
    return Round(calls_us=calls, batches_us=batches, lost=lost)


def main() -> None:
    called(0.2)  # whatever is done once is done
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(called(float(line))), flush=True)


if __name__ == "__main__":
    main()
