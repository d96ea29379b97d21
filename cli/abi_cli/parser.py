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
        raise UsageError(message, hint=f"{_nearest(message, self)}`{self.prog} --help` shows what it takes")


def _nearest(message: str, parser: argparse.ArgumentParser) -> str:
    """For an option that there is not: the one that was meant, if one is near."""
    _, found, words = message.partition("unrecognized arguments: ")
    wrong = words.split(" ")[0].partition("=")[0]
    if not found or not wrong.startswith("--"):
        return ""
    import difflib

    near = difflib.get_close_matches(wrong, _options(parser), n=1)
    return f"did you mean `{near[0]}`? " if near else ""


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Its own, and those of its actions, of which argparse does not say which one was asked for."""
    found: dict[str, None] = {}
    for action in parser._actions:
        found.update(dict.fromkeys(action.option_strings))
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                found.update(dict.fromkeys(_options(below)))
    return list(found)


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
