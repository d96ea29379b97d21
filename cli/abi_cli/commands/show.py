"""`abi show ID`: all that the daemon knows of one job."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import connect
from abi_cli.output import job, json

SUMMARY = "Show all that is known of one job."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi show`."""
    parser.add_argument("--env", action="store_true", help="its environment too (with --json it is always there)")
    parser.add_argument("id", metavar="ID", help="an id, any unique start of one, or `last`")


def run(arguments: argparse.Namespace) -> int:
    """Print facts, or the object; the daemon says `***` for values that look like secrets."""
    with connect() as control:
        found = control.request("show", target=arguments.id)
    if arguments.json:
        json.write(found)
    else:
        print(job.facts(found, env=arguments.env))
    return exits.OK
