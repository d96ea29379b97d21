"""Whoever follows a job is told what goes wrong with that, and the job is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abi.errors import AbiError
from abi.wire.schema import EndKind
from abid.jobs import Job
from abid.watches import LogWatch, WaitWatch


class Answer:
    """Takes down what is said."""

    has_room = True

    def __init__(self) -> None:
        self.connection = SimpleNamespace(watches=[], node=SimpleNamespace(touch=lambda: None))
        self.events: list[dict[str, Any]] = []
        self.said: list[Any] = []

    def event(self, **words: Any) -> None:
        self.events.append(words)

    def result(self, words: Any) -> None:
        self.said.append(words)

    def fail(self, error: AbiError) -> None:
        self.said.append(error)


@pytest.fixture
def node() -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    yield SimpleNamespace(loop=loop, jobs=SimpleNamespace(describe=lambda job: {"seq": job.seq}))
    loop.close()


def job_with_log(path: Path) -> Any:
    """What a watch sees of a job."""
    job = SimpleNamespace(seq=1, end=None, log_path=path, watchers=[])
    job.changed = lambda: Job.changed(job)  # type: ignore[arg-type]
    return job


def test_a_log_that_cannot_be_read_ends_who_follows_it_and_nobody_else(tmp_path: Path, node: Any) -> None:
    job = job_with_log(tmp_path / "log")
    following: Any = Answer()
    waiting: Any = Answer()
    LogWatch(node, following, job, 0, True, ["stdout", "stderr"])
    WaitWatch(node, waiting, [job], None)
    assert len(job.watchers) == 2
    job.log_path.mkdir()
    job.changed()
    (error,) = following.said
    assert isinstance(error, AbiError)
    assert "cannot be read" in error.message
    assert (following.connection.watches, len(job.watchers)) == ([], 1)
    job.end = EndKind.OK
    job.changed()
    assert waiting.said == [{"jobs": [{"seq": 1}]}]
    assert job.watchers == []


def test_a_log_that_cannot_be_read_from_the_start_is_told_once(tmp_path: Path, node: Any) -> None:
    (tmp_path / "log").mkdir()
    job: Any = job_with_log(tmp_path / "log")
    answer: Any = Answer()
    LogWatch(node, answer, job, 0, True, ["stdout"])
    assert [type(said) for said in answer.said] == [AbiError]
    assert (answer.connection.watches, job.watchers) == ([], [])
