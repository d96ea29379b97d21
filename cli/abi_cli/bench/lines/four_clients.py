"""Four programs at one daemon, each with 25,000 no-ops, started by one word when all are warm.

The rate is 100,000 over the seconds from the first program's first submission to the last one's last result.
"""

from __future__ import annotations

import subprocess
import sys

from abi_cli.bench.claims import Line, Metric, Setup, gate_least
from abi_cli.bench.contenders import Runtime

CLIENTS = 4
TASKS = 25_000


def measure(runtime: Runtime, setup: Setup) -> dict[str, float]:
    """Tasks a second, all four together."""
    runtime.start(setup.cores)  # its environment now leads every program below us to this daemon
    tasks = setup.count(TASKS)
    command = [sys.executable, "-m", "abi_cli.bench.client", str(tasks), str(setup.cores)]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)
    ]
    for client in clients:
        _hear(client, "ready")
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    spans = [_hear(client, "span") for client in clients]
    for client in clients:
        client.communicate()
    return {"tasks_per_s": CLIENTS * tasks / (max(end for _, end in spans) - min(begin for begin, _ in spans))}


def _hear(client: subprocess.Popen[str], word: str) -> tuple[float, float]:
    """The two numbers behind the word that the client is to say next. Raises RuntimeError if it says another."""
    assert client.stdout is not None
    said = client.stdout.readline().split()
    if len(said) != 3 or said[0] != word:
        raise RuntimeError(f"a client said {' '.join(said) or 'nothing'!r} instead of {word!r}")
    return float(said[1]), float(said[2])


LINE = Line(
    name="four_clients",
    measure=measure,
    metrics=(Metric("tasks_per_s", "four clients at once, 25,000 each", "/s", "more", (gate_least(60_000),)),),
)
