"""`abi wait ID…`: until jobs have ended; our exit code is theirs."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import Object, connect
from abi_cli import quantities
from abi_cli.output import job, json, text

SUMMARY = "Wait until jobs have ended, and exit with the first code that is not 0."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi wait`."""
    parser.add_argument(
        "--timeout", type=quantities.duration_ms, metavar="DURATION", help="give up after this long (exit code 4)"
    )
    parser.add_argument("ids", nargs="+", metavar="ID", help="an id, any unique start of one, or `last`")


def run(arguments: argparse.Namespace) -> int:
    """Print each job as it ends; the code of the first, in the order asked, that failed."""
    with connect() as control:
        for event in control.stream("wait", ids=arguments.ids, timeout_ms=arguments.timeout):
            _tell(event["job"], arguments.json)
        ended: list[Object] = control.result["jobs"]
    return next((code for code in map(exits.of_job, ended) if code), exits.OK)


def _tell(ended: Object, as_json: bool) -> None:
    if as_json:
        json.write({"job": ended})
    else:
        print(job.line(ended), flush=True)
        if lost := job.discarded(ended):
            text.note(f"{text.clean(ended['short'])}: discarded: {lost}")
