"""multiprocessing.Pool, with the start method that this Python takes by itself."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

from abi_cli.bench.claims import Setup


class Pool:
    """A pool of processes that three threads of the program feed."""

    def __init__(self, setup: Setup) -> None:
        self._pool: Any = None

    def start(self, workers: int) -> None:
        """Its processes start at once."""
        self._pool = multiprocessing.Pool(workers)

    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`apply_async`."""
        apply_async = self._pool.apply_async
        return lambda *arguments: apply_async(function, arguments)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """`get()` of each."""
        return [handle.get() for handle in handles]

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
        """`map` with `chunksize`."""
        return list(self._pool.map(function, items, chunksize=chunk))

    def leave(self) -> bool:
        """It is all one program."""
        return False

    def stop(self) -> None:
        """End its processes, whatever they do."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
