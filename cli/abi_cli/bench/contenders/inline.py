"""No runtime at all: each call runs where and when it is submitted. For tests of the bench itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from abi_cli.bench.claims import Setup


class Inline:
    """`started` and `stopped` count the calls; using it outside of them fails, as a runtime would."""

    def __init__(self, setup: Setup) -> None:
        self.started = 0
        self.stopped = 0

    def start(self, workers: int) -> None:
        """Nothing to start."""
        if self.started:
            raise RuntimeError("started twice")
        self.started += 1

    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function: a handle is its value."""
        if not self.started or self.stopped:
            raise RuntimeError("not running")
        return function

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """The values."""
        return list(handles)

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
        """One after the other."""
        return [function(item) for item in items]

    def leave(self) -> bool:
        """It is all one program."""
        return False

    def stop(self) -> None:
        """Nothing to stop."""
        self.stopped += 1
