"""Whole conversations of what is ours: standing in order of rank, restored disks, a learner's promotion. In the form of
etcd's scripts, with every word expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.raft.own_play import OwnPlay
from tests.core.raft.scripts import steps

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript(path: Path) -> None:
    play = OwnPlay()
    script = list(steps(path))
    assert len(script) > 5
    for step in script:
        assert play.run(step) == step.expected, step


def test_they_are_here() -> None:
    assert len(TRANSCRIPTS) == 5
