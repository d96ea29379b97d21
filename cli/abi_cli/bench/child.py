"""Runs one measurement in a fresh process, and sees to it that nothing of it stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from abi_cli.bench import procs
from abi_cli.bench.claims import Line
from abi_cli.bench.drive import Order
from abi_cli.bench.own_daemon import without_abi
from abi_cli.bench.peers import Contender

TERM_S = 5.0
TAIL_LINES = 6


@dataclass(frozen=True)
class Reading:
    """What one measurement gave. `left` are the command lines of processes that it did not end by itself."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    left: tuple[str, ...] = ()


def measure(line: Line, contender: Contender, cores: int, scale: float = 1.0) -> Reading:
    """Carry out one order. A measurement that fails is a reading with a `problem`, never an exception.

    KeyboardInterrupt passes through once every process is gone. For a subreaper, see `procs.subreaper`.
    """
    with tempfile.TemporaryDirectory(prefix="abi-bench-", ignore_cleanup_errors=True) as directory:
        order = Order(
            line=line.name,
            contender=contender.name,
            cores=cores,
            directory=os.path.join(directory, "own"),
            answer=os.path.join(directory, "answer.json"),
            parent=os.getpid(),
            isolated=contender.isolated,
            scale=scale,
        )
        os.mkdir(order.directory, 0o700)
        return _carry_out(order, contender, directory, line.limit_s)


def _carry_out(order: Order, contender: Contender, directory: str, limit_s: float) -> Reading:
    with open(os.path.join(directory, "said"), "w+b") as said:
        process = subprocess.Popen(
            [contender.python, "-m", "abi_cli.bench.drive", order.to_json()],
            env=_environment(contender, directory),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,  # Ctrl-C is for us; we tell it ourselves
        )
        try:
            process.wait(limit_s)
            problem = f"its process ended with code {process.returncode}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"not done after {limit_s:.0f} s"
        finally:
            _end(process)
        left = procs.end_descendants(0.0)
        return _read(order.answer, problem, tuple(left), _tail(said.name))


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM makes it end what is below it, and then itself."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERM_S)
    if process.poll() is None:
        process.kill()
        process.wait()


def _environment(contender: Contender, directory: str) -> dict[str, str]:
    environment = {**without_abi(os.environ), "TMPDIR": directory}
    # A running daemon of the user's must not be found, nor a configuration of theirs be read.
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        environment[name] = os.path.join(directory, name.lower())
        os.mkdir(environment[name], 0o700)
    if contender.foreign:
        environment["PYTHONPATH"] = _lend_package(directory)
        environment.pop("PYTHONHOME", None)
    return environment


def _lend_package(directory: str) -> str:
    """A directory with our package and nothing else, for a Python whose own libraries must not be mixed with ours."""
    import abi_cli

    lent = os.path.join(directory, "lent")
    os.mkdir(lent)
    os.symlink(os.path.dirname(os.path.abspath(abi_cli.__file__)), os.path.join(lent, "abi_cli"))
    return lent


def _read(path: str, problem: str, left: tuple[str, ...], tail: str) -> Reading:
    try:
        with open(path, encoding="utf-8") as file:
            answer = json.load(file)
    except (OSError, ValueError):
        return Reading(problem=f"{problem or 'it said nothing'}{tail}", left=left)
    told = str(answer["problem"])
    return Reading(answer["metrics"], f"{told}{tail}" if told else problem, (*answer["left"], *left))


def _tail(path: str) -> str:
    """The last lines of what it printed, to stand behind a problem."""
    with open(path, "rb") as file:
        lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    return "".join(f"\n    {line}" for line in lines)
