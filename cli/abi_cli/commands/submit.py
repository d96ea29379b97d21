"""`abi submit [options] -- COMMAND …`: run a command under the daemon as if it ran here.

Its output comes out here byte by byte and its exit code is ours. The job is the daemon's:
closing this terminal, or one Ctrl-C, leaves it running.
"""

from __future__ import annotations

import argparse
import os
import signal

from abi import exits
from abi.control import Control, Object, connect
from abi.errors import AbiError, Refused, UsageError
from abi_cli import quantities
from abi_cli.following import JSON_OF_OUTPUT, follow
from abi_cli.output import job as job_words
from abi_cli.output import json, text

SUMMARY = "Run a command under the daemon, with its output and exit code here."
EXITS = """\
exit code: the command's own, 128 + n if signal n ended it; 127 if it is not there, 126 if it cannot be run; 4 if it ran
longer than --time-limit, 130 if it was cancelled, 1 if it was lost; 75 if the queue is full, 69 if the daemon went;
74 instead of 0 if it wrote more than jobs.log_bytes_max, or the disk was full: the rest was discarded.
Nothing is on the command's standard input. One Ctrl-C leaves the job running, a second one within 2 s cancels it: it
gets SIGTERM, and is killed if it still runs after workers.interrupt_grace_ms (2 s), as at its --time-limit.
A command that ended is never run again, however it ended. One whose supervisor, the process of ours that watches it,
was killed is killed with it and started again, at most 3 times, or tasks.uncharged_starts_max (16) times where the
zygote above it died; a line on stderr says so.
"""
JSON = JSON_OF_OUTPUT
SECOND_INTERRUPT_S = 2.0
LOOK_FOR_SIGNALS_S = 0.25
PRIORITIES = ("low", "normal", "high", "critical")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi submit`."""
    parser.epilog = EXITS
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
    with _Interrupts() as interrupts:
        try:
            if as_json:
                json.write(job)
            ended = follow(control, str(job["id"]), until_end=True, streams=["stdout", "stderr"], as_json=as_json)
        except KeyboardInterrupt:
            return _interrupted(job, interrupts)
    if as_json:
        json.write({"job": ended})
    else:
        _tell_end(ended)
    return exits.of_job(ended)


def _tell_end(ended: Object) -> None:
    """What its output and its exit code do not say."""
    if ended.get("error") or ended.get("end") not in ("ok", "error"):
        text.note(text.clean(ended.get("error") or f"the job ended: {ended.get('end')}"))
    if lost := job_words.discarded(ended):
        text.note(f"discarded: {lost}")


class _Interrupts:
    """Ctrl-C, counted. The first raises KeyboardInterrupt and blocks the signal; so a second one cannot strike in the
    midst of what the first began, but waits for `second`.

    A signal that comes when Python has looked for signals and has not yet begun to wait in the kernel is noticed at the
    end of that wait, which may be never. So another one, without meaning, ends each wait a few times a second.
    """

    def __enter__(self) -> _Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_first)
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, LOOK_FOR_SIGNALS_S, LOOK_FOR_SIGNALS_S)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, self._before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _on_first(self, number: int, frame: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        raise KeyboardInterrupt

    def second(self, within_s: float) -> bool:
        """Whether another one came already, or comes in time. The one after it ends us."""
        came = signal.sigtimedwait({signal.SIGINT}, within_s) is not None
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return came


def _interrupted(job: Object, interrupts: _Interrupts) -> int:
    """First Ctrl-C: the job goes on and we say how to find it. Second: it is cancelled."""
    short = text.clean(job["short"])
    text.note(f"the job goes on; `abi logs -f {short}` shows it again. Ctrl-C within 2 s cancels it")
    if interrupts.second(SECOND_INTERRUPT_S):
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
        text.note(f"cancelling {short}")


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
