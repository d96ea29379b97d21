"""Daemons for the rows of the seed's page: one that says what a test told it to, and real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.seed.members import Making
from tests.unit.conftest import ScriptedDaemon


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    """A scripted daemon on a real Unix socket, and `ABI_SOCKET` pointing at it."""
    directory = tmp_path / "run"
    directory.mkdir(0o700)
    path = str(directory / "abid.sock")
    monkeypatch.setenv("ABI_SOCKET", path)
    daemon = ScriptedDaemon(path)
    yield daemon
    daemon.close()


@pytest.fixture
def making() -> Iterator[Making]:
    made = Making()
    try:
        yield made
    finally:
        made.close()
