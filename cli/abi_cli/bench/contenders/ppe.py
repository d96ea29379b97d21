"""concurrent.futures.ProcessPoolExecutor, with the start method that this Python takes by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from abi_cli.bench.claims import Setup


class Executor:
    """A pool of processes that a thread of the program feeds."""

    def __init__(self, setup: Setup) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def start(self, workers: int) -> None:
        """Its processes start with the first tasks."""
        self._pool = ProcessPoolExecutor(workers)

    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`submit`."""
        assert self._pool is not None
        return partial(self._pool.submit, function)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """`result()` of each."""
        return [handle.result() for handle in handles]

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
        """`map` with `chunksize`."""
        assert self._pool is not None
        return list(self._pool.map(function, items, chunksize=chunk))

    def leave(self) -> bool:
        """It is all one program."""
        return False

    def stop(self) -> None:
        """Drop what has not started and wait for the rest."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
