"""The pickler for what has no name to import it by: cloudpickle's, which also collects references."""

from __future__ import annotations

import io
from typing import Any

import cloudpickle

from abi.pickling import PROTOCOL, by_name, reduce_reference


class _Cloud(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, out_of_band: Any, nested: list[Any]) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=out_of_band)
        self._nested = nested

    def reducer_override(self, obj: Any) -> Any:
        reduced = by_name(obj)
        if reduced is not None:
            return reduced
        reduced = reduce_reference(obj, self._nested)
        if reduced is not NotImplemented:
            return reduced
        return super().reducer_override(obj)


def cloud_pickler(file: io.BytesIO, out_of_band: Any, nested: list[Any]) -> Any:
    return _Cloud(file, out_of_band, nested)
