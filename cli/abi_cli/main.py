"""`abi COMMAND …`: find the command, import only that, and turn its errors into exit codes.

`abi status` must cost little more than the interpreter's own start, so each command's
module is imported when it was asked for, and the list that `abi --help` prints stands here.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from types import SimpleNamespace

from abi import exits
from abi.errors import AbiError, UsageError

TYPE_CHECKING = False  # typing costs milliseconds, which `abi status` has not
if TYPE_CHECKING:
    from typing import TextIO

COMMANDS = {
    "submit": "run a command, with its output and exit code here",
    "jobs": "list jobs",
    "show": "all that is known of one job",
    "logs": "print a job's output, or follow it",
    "wait": "wait for jobs to end; exits with their code",
    "cancel": "end jobs",
    "status": "the daemon and what it is doing",
    "cluster": "found a cluster, let hosts into it, join or leave one",
    "network": "the hosts of the cluster, and how this one stands with them",
    "config": "every setting and where it came from; check a file",
    "bench": "measure this machine",
    "version": "the version of abi",
}
_END_SLOWLY = ("bench", "submit")
"""Commands with threads and processes of their own."""
_OF_ABID = ("start", "stop", "reload", "install-service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. As a process (``arguments`` is None) it ends here, without tearing down what was
    loaded: 4 ms of the 40 that `abi status` may take."""
    if arguments is not None:
        return _answer(list(arguments))
    gc.disable()  # there is nothing to collect while modules load
    words = sys.argv[1:]
    code = _answer(words)
    if not set(words[:2]).isdisjoint(_END_SLOWLY):
        return code
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    os._exit(code)


def _answer(words: list[str]) -> int:
    as_json = _wants_json(words)
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe is still an answer
    except AbiError as error:
        _tell(error, as_json)
        return exits.of_error(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has had enough (`| head`)
        _abandon_output()
        return exits.PIPE_CLOSED
    except OSError as problem:  # a full disk behind `>`, a terminal that went away
        where = problem.filename or "standard output"
        _tell(AbiError(f"{where}: {problem.strerror or problem}"), as_json)
        _abandon_output()
        return exits.FAILURE
    return code


def _run(words: list[str]) -> int:
    if words[:1] == ["--json"]:  # `abi --json status` means what it says
        words = [*words[1:2], "--json", *words[2:]]
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help"):
        print(_overview())
        return exits.OK if words else exits.USAGE
    if name in ("-V", "--version"):
        name = "version"
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}", hint=_suggest(name))
    return _run_command(name, words[1:])


def _run_command(name: str, words: list[str]) -> int:
    command = importlib.import_module(f"abi_cli.commands.{name}")
    if not hasattr(command, "add_arguments") and words in ([], ["--json"]):  # argparse is a fifth of `abi status`
        return int(command.run(SimpleNamespace(json=bool(words))))
    from abi_cli.parser import Parser

    parser = Parser(f"abi {name}", command.SUMMARY)
    parser.add_argument("--json", action="store_true", help=getattr(command, "JSON", "print JSON, one object a line"))
    if hasattr(command, "add_arguments"):
        command.add_arguments(parser)
    try:
        understood = parser.parse_args(words)
    except SystemExit:  # argparse has printed the help that was asked for
        return exits.OK
    gc.enable()
    return int(command.run(understood))


def _wants_json(words: list[str]) -> bool:
    """Whether `--json` is among our own words, known before any of them was understood."""
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own


def _never_fail_to_encode(stream: object) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):  # what could not be written has been told
        return


def _abandon_output() -> None:
    """Nothing may be written any more, not even by the interpreter as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _overview() -> str:
    lines = ["usage: abi COMMAND [--json] …", ""]
    lines += [f"  {name:<10} {summary}" for name, summary in COMMANDS.items()]
    lines += ["", "`abi COMMAND --help` tells more. The daemon: abid start | stop | status | reload."]
    return "\n".join(lines)


def _suggest(name: str) -> str:
    if name in _OF_ABID:
        return f"did you mean `abid {name}`?"
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"did you mean `abi {near[0]}`?" if near else "`abi --help` lists them"


def _tell(error: AbiError, as_json: bool) -> None:
    _flush(sys.stdout)  # what was printed before it comes first
    try:
        if as_json:
            from abi_cli.output.json import write_error

            write_error(error)
        else:
            from abi_cli.output.text import write_error

            write_error(error)
    except (OSError, AttributeError):
        pass  # stdout or stderr is closed: the exit code says it


if __name__ == "__main__":
    sys.exit(main())
