"""`abi bench`: the measurements live in `abi_cli.bench`, which is imported only for this."""

from __future__ import annotations

import argparse
import importlib

SUMMARY = "Measure this machine, and compare with other libraries."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the bench itself takes."""
    importlib.import_module("abi_cli.bench.command").add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run it; its exit code."""
    return int(importlib.import_module("abi_cli.bench.command").run(arguments))
