"""`abi cancel ID…`: end jobs, by an interrupt and some time later by force, or with --force at once."""

from __future__ import annotations

import argparse

from abi import exits
from abi.control import Object, connect
from abi_cli.output import job, json, text

SUMMARY = """End jobs. One that runs gets SIGTERM, and is killed if it still runs after workers.interrupt_grace_ms
(2 s unless configured otherwise); one that waits never starts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi cancel`."""
    parser.add_argument("--force", action="store_true", help="kill at once, without SIGTERM first")
    parser.add_argument("ids", nargs="+", metavar="ID", help="an id, any unique start of one, or `last`")


def run(arguments: argparse.Namespace) -> int:
    """Cancel one after the other; the first that fails ends it with that error."""
    with connect() as control:
        for identity in arguments.ids:
            answer = control.request("cancel", target=identity, force=arguments.force)
            had_ended = answer.pop("had_ended", False)
            if arguments.json:
                json.write(answer)
            else:
                print(_line(answer["job"], had_ended))
    return exits.OK


def _line(cancelled: Object, had_ended: bool) -> str:
    short = text.clean(cancelled["short"])
    return f"{short} had ended already: {text.clean(job.outcome(cancelled))}" if had_ended else f"cancelling {short}"
