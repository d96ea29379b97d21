"""argparse, but a mistake is our own error: so `--json` can print it like every other."""

from __future__ import annotations

import argparse
from typing import NoReturn

from abi.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for wrong arguments."""
        raise UsageError(message, hint=f"`{self.prog} --help` shows what it takes")
