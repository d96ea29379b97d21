"""Ourselves: a daemon of our own, in directories of its own, and a program attached to it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from abi_cli.bench.claims import Setup
from abi_cli.bench.own_daemon import OwnDaemon


class Abi:
    """`daemon` is None until `start`."""

    def __init__(self, setup: Setup) -> None:
        self.daemon: OwnDaemon | None = None
        self._directory = setup.directory
        self._abi: Any = importlib.import_module("abi")
        self._attached = False

    def start(self, workers: int) -> None:
        """A daemon with so many CPUs to share out, each taken by one task."""
        self.daemon = OwnDaemon(self._directory, {"ABI_WORKERS_CPUS": str(workers)})
        self.daemon.start()
        os.environ.update(self.daemon.addresses)
        self._abi.init()
        self._attached = True

    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`.remote` of the function."""
        remote: Callable[..., Any] = self._abi.remote(function).remote
        return remote

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """`abi.get`."""
        values: list[Any] = self._abi.get(handles)
        return values

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
        """`abi.map`."""
        return list(self._abi.map(function, items, chunk=chunk))

    def leave(self) -> bool:
        """Detach from the daemon, which goes on."""
        if self._attached:
            self._attached = False
            self._abi.shutdown()
        return True

    def stop(self) -> None:
        """Detach, and stop the daemon."""
        try:
            self.leave()
        finally:
            if self.daemon is not None:
                self.daemon.stop(now=True)
