"""`abi version`: of abi, of the protocol, of Python. Asks no daemon."""

from __future__ import annotations

import platform
from types import SimpleNamespace

from abi import exits
from abi.control import PROTOCOL
from abi.version import __version__
from abi_cli.output import json

SUMMARY = "Show the version of abi."


def run(arguments: SimpleNamespace) -> int:
    """Print one line, or one object."""
    protocol = f"{PROTOCOL[0]}.{PROTOCOL[1]}"
    if arguments.json:
        json.write({"version": __version__, "protocol": protocol, "python": platform.python_version()})
    else:
        print(f"abi {__version__} (protocol {protocol}, Python {platform.python_version()})")
    return exits.OK
