"""`abi jobs`: the jobs that the daemon knows."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import connect
from abi_cli.output import job, json, text

SUMMARY = "List the jobs that wait or run; with --all those that ended too."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi jobs`."""
    parser.add_argument("-a", "--all", action="store_true", help="finished jobs too")


def run(arguments: argparse.Namespace) -> int:
    """Print a table, or one object with a list."""
    with connect() as control:
        answer = control.request("jobs", all=arguments.all)
    if arguments.json:
        json.write(answer)
    elif answer["jobs"]:
        print(text.table(job.HEAD, [job.row(each) for each in answer["jobs"]]))
    else:
        text.note("no jobs" if arguments.all else "no jobs wait or run; `abi jobs --all` shows finished ones")
    if left_out := answer.get("left_out"):
        text.note(f"{left_out} older ones are not listed")
    return exits.OK
