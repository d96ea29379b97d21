"""`abi submit [options] -- COMMAND …`: run a command under the daemon as if it ran here.

Its output comes out here byte by byte and its exit code is ours. The job is the daemon's:
closing this terminal, or one Ctrl-C, leaves it running.
"""

from __future__ import annotations

import argparse
import os
import time

from abi.control import Control, Object, connect
from abi.errors import AbiError, Refused, UsageError
from abi_cli import exits, quantities
from abi_cli.following import follow
from abi_cli.output import json, text

SUMMARY = "Run a command under the daemon, with its output and exit code here."
SECOND_INTERRUPT_S = 2.0
PRIORITIES = ("low", "normal", "high", "critical")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi submit`."""
    add = parser.add_argument
    add("--name", help="what to call the job (default: the command's name)")
    add("--cpus", type=quantities.amount, default=1.0, help="CPUs it needs, in steps of 0.0001 (default 1)")
    add("--memory", type=quantities.size_bytes, metavar="SIZE", help="memory it needs, such as 512M or 4GiB")
    add(
        "--resource",
        type=quantities.resource,
        action="append",
        default=[],
        metavar="NAME=AMOUNT",
        help="another resource it needs",
    )
    add(
        "--env",
        type=quantities.pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a variable on top of this environment",
    )
    add("--cwd", metavar="DIRECTORY", help="where it runs (default: here)")
    add("--time-limit", type=quantities.duration_ms, metavar="DURATION", help="end it after this long: 90s, 5m, 1h30m")
    add("--priority", choices=PRIORITIES, default="normal", help="default normal")
    add("-d", "--detach", action="store_true", help="print the id and return at once")
    add("--durable", action="store_true", help="not there yet")
    add("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="what to run")


def run(arguments: argparse.Namespace) -> int:
    """Submit, then follow unless detached; the job's exit code."""
    request = _request(arguments)
    with connect() as control:
        try:
            job = control.request("submit", **request)
        except KeyboardInterrupt:
            text.note("interrupted before the daemon answered; `abi jobs` shows whether it took the job")
            return exits.INTERRUPTED
        if arguments.detach:
            _print_id(job, arguments.json)
            return exits.OK
        return _attached(control, job, arguments.json)


def _attached(control: Control, job: Object, as_json: bool) -> int:
    try:
        if as_json:
            json.write(job)
        ended = follow(control, str(job["id"]), until_end=True, streams=["stdout", "stderr"], as_json=as_json)
    except KeyboardInterrupt:
        return _interrupted(job)
    if as_json:
        json.write({"job": ended})
    elif ended.get("end") not in ("ok", "error"):
        text.note(text.clean(ended.get("why") or f"the job ended: {ended.get('end')}"))
    return exits.of_job(ended)


def _interrupted(job: Object) -> int:
    """First Ctrl-C: the job goes on and we say how to find it. Second: it is cancelled."""
    short = text.clean(job["short"])
    try:
        text.note(f"the job goes on; `abi logs -f {short}` shows it again. Ctrl-C within 2 s cancels it")
        time.sleep(SECOND_INTERRUPT_S)
    except KeyboardInterrupt:
        _cancel(job, short)
    return exits.INTERRUPTED


def _cancel(job: Object, short: str) -> None:
    # On a connection of its own: the other may have been cut in the middle of a frame.
    try:
        with connect() as control:
            control.request("cancel", target=job["id"], force=False)
    except AbiError as problem:
        text.note(f"could not cancel {short}: {problem.message}")
    else:
        text.note(f"cancelled {short}")


def _print_id(job: Object, as_json: bool) -> None:
    if as_json:
        json.write(job)
    else:
        print(text.clean(job["short"]))


def _request(arguments: argparse.Namespace) -> Object:
    if arguments.durable:
        raise Refused(
            "--durable: durability is not there yet; until then a job ends with its daemon",
            hint="submit without --durable",
        )
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise UsageError("no command was given", hint="abi submit [options] -- COMMAND …")
    return {
        "command": command,
        "name": arguments.name or os.path.basename(command[0]),
        "cpus": arguments.cpus,
        "memory": arguments.memory,
        "env": {**os.environ, **dict(arguments.env)},
        "cwd": _directory(arguments.cwd),
        "time_limit_ms": arguments.time_limit,
        "priority": arguments.priority,
        "resources": dict(arguments.resource),
    }


def _directory(named: str | None) -> str:
    try:
        path = os.path.abspath(named or os.getcwd())
    except FileNotFoundError:
        raise UsageError("the current directory was removed", hint="cd somewhere, or give --cwd") from None
    if not os.path.isdir(path):
        raise UsageError(f"--cwd: {path} is no directory")
    return path
