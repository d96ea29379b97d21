from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.worker.zygote_harness import Process, Zygote, a_zygote

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with a_zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


@pytest.fixture
def zygote(tmp_path: object) -> Iterator[Zygote]:
    """One of its own, for tests that end it or count its children."""
    with a_zygote(tmp_path) as zygote:
        yield zygote


@pytest.fixture
def worker(shared_zygote: Zygote) -> Iterator[Process]:
    """A fresh worker that is set up; it is killed afterwards."""
    process = shared_zygote.worker(next(_numbers))
    yield process
    process.side.close()
