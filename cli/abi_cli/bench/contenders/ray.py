"""Ray on this host alone, without its dashboard. `drive` has left the network before: Ray binds every interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from abi_cli.bench.claims import Setup
from abi_cli.bench.contenders import installed

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Ray:
    """A head node inside `setup.directory`."""

    def __init__(self, setup: Setup) -> None:
        os.environ.update(QUIET)
        self._directory = setup.directory
        self._ray: Any = installed("ray")

    def start(self, workers: int) -> None:
        """`ray.init`, with everything off that a comparison does not need."""
        self._ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=True,
            _temp_dir=os.path.join(self._directory, "ray"),
        )

    def submitter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`.remote` of the function."""
        remote: Callable[..., Any] = self._ray.remote(function).remote
        return remote

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """`ray.get`."""
        values: list[Any] = self._ray.get(handles)
        return values

    def chunked(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
        """It has no such call."""
        raise NotImplementedError

    def leave(self) -> bool:
        """Its node was started by the program and ends with it."""
        return False

    def stop(self) -> None:
        """`ray.shutdown`."""
        self._ray.shutdown()
