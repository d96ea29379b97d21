"""`abi logs [-f] ID`: what a job has written, each stream to our own of that name."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import connect
from abi_cli.following import JSON_OF_OUTPUT, follow
from abi_cli.output import json

SUMMARY = "Print what a job has written; with -f also what it goes on to write."
JSON = JSON_OF_OUTPUT
STREAMS = ("stdout", "stderr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi logs`."""
    parser.add_argument("-f", "--follow", action="store_true", help="until the job ends; it may still be queued")
    parser.add_argument("--stream", choices=STREAMS, help="only this one (default: both)")
    parser.add_argument("id", metavar="ID", help="an id, any unique start of one, or `last`")


def run(arguments: argparse.Namespace) -> int:
    """Print; 0 whatever the job's own code is (`abi wait` gives that)."""
    streams: list[str] = [arguments.stream] if arguments.stream else list(STREAMS)
    with connect() as control:
        ended = follow(control, arguments.id, until_end=arguments.follow, streams=streams, as_json=arguments.json)
    if arguments.json:
        json.write({"job": ended})
    return exits.OK
