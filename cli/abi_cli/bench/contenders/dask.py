"""Dask.distributed: a LocalCluster of processes with one thread each, on loopback, without its dashboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from abi_cli.bench.claims import Setup
from abi_cli.bench.contenders import installed


class Dask:
    """A scheduler inside the program, and a nanny and a worker for each CPU."""

    def __init__(self, setup: Setup) -> None:
        self._directory = setup.directory
        self._distributed: Any = installed("distributed")
        self._cluster: Any = None
        self._client: Any = None

    def start(self, workers: int) -> None:
        """Scheduler, workers and a client."""
        self._cluster = self._distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
            local_directory=os.path.join(self._directory, "dask"),
        )
        self._client = self._distributed.Client(self._cluster)

    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`submit`; not pure, or ten thousand equal calls would be one."""
        submit = self._client.submit
        return lambda *arguments: submit(function, *arguments, pure=False)

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """`gather`."""
        values: list[Any] = self._client.gather(list(handles))
        return values

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
        """`map` with `batch_size`."""
        return self.results(self._client.map(function, items, batch_size=chunk, pure=False))

    def leave(self) -> bool:
        """Its scheduler runs inside the program."""
        return False

    def stop(self) -> None:
        """Close client and cluster."""
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
