"""A task's exception whose class has our names for itself: every way to its result raises it all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import abi
from abi.failure import failure_of
from abi.wire.codec import encode_failure
from abi.wire.schema import End, EndKind, Task
from tests.lib.conftest import Connected
from tests.lib.fake_daemon import FakeDaemon


@abi.remote
def nothing() -> None: ...


class Own(Exception):
    """It has our names for itself, and Python's."""

    def code(self) -> int:
        return 404

    def with_traceback(self, _traceback: Any) -> Any:
        raise AssertionError("called")


def test_a_failure_that_has_our_names_for_itself(connect: Callable[..., Connected]) -> None:
    def answer(_daemon: FakeDaemon, task: Task) -> list[End]:
        return [End(task.seq, EndKind.ERROR, encode_failure(failure_of(Own("boom"), "here", "f")))]

    connect(answer)
    with pytest.raises(Own) as caught:
        abi.get(nothing.remote())
    assert caught.value.code() == 404
    error = nothing.remote().future().exception(10)
    assert isinstance(error, Own)

    async def main() -> None:
        await nothing.remote()

    with pytest.raises(Own):
        asyncio.run(main())
