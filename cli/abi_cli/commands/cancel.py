"""`abi cancel ID…`: end jobs, by interrupt, or with --force at once."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import connect
from abi_cli.output import job, json

SUMMARY = "End jobs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi cancel`."""
    parser.add_argument("--force", action="store_true", help="kill at once instead of interrupting first")
    parser.add_argument("ids", nargs="+", metavar="ID", help="an id, any unique start of one, or `last`")


def run(arguments: argparse.Namespace) -> int:
    """Cancel one after the other; the first that fails ends it with that error."""
    with connect() as control:
        for identity in arguments.ids:
            answer = control.request("cancel", target=identity, force=arguments.force)
            if arguments.json:
                json.write(answer)
            else:
                print(job.line(answer["job"]))
    return exits.OK
