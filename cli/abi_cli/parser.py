"""argparse, but a mistake is our own error: so `--json` can print it like every other."""

from __future__ import annotations

import argparse
import os

from abi.errors import UsageError

TYPE_CHECKING = False  # typing costs milliseconds, which `abi status` has not
if TYPE_CHECKING:
    from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print and exit."""

    def __init__(self, prog: str, summary: str) -> None:
        super().__init__(prog=prog, description=summary, allow_abbrev=False, formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for wrong arguments."""
        raise UsageError(message, hint=f"`{self.prog} --help` shows what it takes")


class _Formatter(argparse.HelpFormatter):
    """With a width of its own: argparse asks shutil, which imports every compressor, at each argument."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width())


def _width() -> int:
    try:
        return max(40, min(110, os.get_terminal_size(1).columns - 2))
    except OSError:
        return 98
