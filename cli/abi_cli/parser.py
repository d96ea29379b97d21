"""argparse, but a mistake is our own error: so `--json` can print it like every other."""

from __future__ import annotations

import argparse
import os

from abi.errors import UsageError

TYPE_CHECKING = False  # typing costs milliseconds, which `abi status` has not
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypeAlias

    Action: TypeAlias = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print and exit."""

    def __init__(self, prog: str, summary: str) -> None:
        super().__init__(prog=prog, description=summary, allow_abbrev=False, formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for wrong arguments."""
        raise UsageError(message, hint=f"`{self.prog} --help` shows what it takes")


class _Action(Parser):
    """As argparse makes it for a subcommand."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog, description)


class _Formatter(argparse.HelpFormatter):
    """With a width of its own: argparse asks shutil, which imports every compressor, at each argument."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width())


def _width() -> int:
    try:
        return max(40, min(110, os.get_terminal_size(1).columns - 2))
    except OSError:
        return 98


def subcommands(parser: argparse.ArgumentParser) -> Callable[[str, str, Action], argparse.ArgumentParser]:
    """For `abi COMMAND ACTION …`: a function that adds an action (its name, what it does, the function that does it,
    which is found as `arguments.action`) and returns its parser."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=_Action)

    def add(name: str, does: str, action: Action) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        added.set_defaults(action=action)
        return added

    return add
