"""`abi config show | check`: every setting and where it came from; mistakes before they matter."""

from __future__ import annotations

import argparse

from abi import config, exits
from abi.control import Object, connect
from abi.errors import ConfigError, DaemonUnreachable
from abi.options import spelled
from abi_cli.output import json, text

SUMMARY = "Show every setting and where it came from, or check a configuration."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `abi config`."""
    parser.add_argument("action", nargs="?", choices=("show", "check"), default="show")
    parser.add_argument("-c", "--config", metavar="FILE", help="this file, not the default one")
    parser.add_argument("--system", action="store_true", help="what a system daemon would read")


def run(arguments: argparse.Namespace) -> int:
    """Show or check; mistakes are exit code 78, and check tells all of them."""
    if arguments.action == "check":
        return _check(arguments)
    values = _values(arguments)
    if arguments.json:
        json.write({"values": values})
    else:
        rows = [(key, _spelled(each["value"]), each["origin"]) for key, each in values.items()]
        print(text.table(("KEY", "VALUE", "ORIGIN"), rows))
    return exits.OK


def _check(arguments: argparse.Namespace) -> int:
    loaded, mistakes = config.load_all(arguments.config, system=arguments.system)
    for mistake in mistakes:
        _tell(mistake, arguments.json)
    if mistakes:
        return exits.BAD_CONFIG
    changed = sum(setting.origin != "default" for setting in loaded.settings.values())
    if arguments.json:
        json.write({"ok": True, "file": loaded.file, "settings": changed})
    else:
        print(f"no mistakes in {text.clean(loaded.file or 'the environment; there is no file')}: {changed} settings")
    return exits.OK


def _tell(mistake: ConfigError, as_json: bool) -> None:
    """In one line."""
    if as_json:
        json.write_error(mistake)
    else:
        text.note(text.clean(f"{mistake.message}; {mistake.hint}" if mistake.hint else mistake.message))


def _values(arguments: argparse.Namespace) -> Object:
    """What the running daemon has; without one, or for a given file, what one would have."""
    if not arguments.config and not arguments.system:
        try:
            with connect() as control:
                return dict(control.request("config")["values"])
        except DaemonUnreachable:
            text.note("no daemon runs; one that starts here would have these")
    return dict(config.load(arguments.config, system=arguments.system).shown())


def _spelled(value: object) -> str:
    if isinstance(value, list):
        return spelled(tuple(value))
    return spelled(value) if isinstance(value, int | float | str | dict) else str(value)
