"""Answers for programs: one object a line, ASCII, each line complete when it is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from abi.errors import AbiError, Busy
from abi_cli.output.raw import write_all


def write(answer: Mapping[str, object]) -> None:
    """Print one object on standard output."""
    write_all(sys.stdout, json.dumps(answer).encode("ascii") + b"\n")


def write_error(error: AbiError) -> None:
    """Print `{"error": {"code", "message", "hint"}}` on standard error."""
    inside: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, Busy):
        inside["retry_after_ms"] = error.retry_after_ms
    print(json.dumps({"error": inside}), file=sys.stderr)
