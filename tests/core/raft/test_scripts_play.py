"""etcd's scripts of whole clusters: messages, hard states, configurations and logs, not the logger's prose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.core.raft.play import Play
from tests.core.raft.scripts import files, needs_scripts, steps

pytestmark = needs_scripts

_PROSE = re.compile(r"\s*(INFO|DEBUG|WARN|ERROR) ")


def meant(lines: list[str]) -> list[str]:
    """Without prose. Which of two forms a change was proposed in is no difference here."""
    kept = [line.rstrip() for line in lines if not _PROSE.match(line) or "switched to configuration" in line]
    return [line.replace("EntryConfChangeV2", "EntryConfChange") for line in kept] or ["ok"]


@pytest.mark.parametrize("path", files(""), ids=lambda path: path.stem)
def test_a_cluster(path: Path) -> None:
    play = Play()
    script = list(steps(path))
    assert script
    for step in script:
        assert meant(play.run(step)) == meant(step.expected), step
