"""A job's output, as it comes: its bytes to our own standard output and error, unchanged."""

from __future__ import annotations

import base64
import sys
from typing import BinaryIO

from abi.control import Control, Object
from abi_cli.output import json


def follow(control: Control, identity: str, *, until_end: bool, streams: list[str], as_json: bool) -> Object:
    """Print what a job has written, and with `until_end` what it will; the job.

    With `as_json` each piece is a line `{"stream", "offset", "data"}`, `data` in base64: a
    piece may end in the middle of a character.
    """
    events = control.stream("logs", target=identity, follow=until_end, offset=0, streams=streams)
    for event in events:
        if as_json:
            json.write(event)
        else:
            _pass_on(str(event["stream"]), base64.b64decode(event["data"]))
    return control.result


def _pass_on(stream: str, data: bytes) -> None:
    sink = _sink(stream)
    if sink is not None:
        sink.write(data)
        sink.flush()


def _sink(stream: str) -> BinaryIO | None:
    """Our own stream of that name; None if we were started with it closed."""
    own = sys.stderr if stream == "stderr" else sys.stdout
    return None if own is None else own.buffer
