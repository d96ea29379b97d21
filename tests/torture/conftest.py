"""Skips with the reason where there can be no hosts."""

from __future__ import annotations

import pytest

from tests.hosts import kernel


@pytest.fixture(scope="session")
def needs_hosts() -> None:
    missing = kernel.why_not()
    if missing:
        pytest.skip(f"no hosts for tests: {missing}")
