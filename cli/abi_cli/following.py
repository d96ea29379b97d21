"""A job's output, as it comes: its bytes to our own standard output and error, unchanged."""

from __future__ import annotations

import base64
import sys

from abi.control import Control, Object
from abi_cli.output import json, raw

JSON_OF_OUTPUT = (
    'print JSON, one object a line: output as {"stream", "offset", "data"} with data in base64, at last {"job": …}'
)


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
            own = sys.stderr if event["stream"] == "stderr" else sys.stdout
            raw.write_all(own, base64.b64decode(event["data"]))
    return control.result
