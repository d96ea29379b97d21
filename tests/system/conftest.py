"""Fixtures of the tests with real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import abi
from tests.system.clusters import Hosts
from tests.system.harness import Daemon

# Under nohup the suite would hand an ignored SIGHUP on to every program that it hangs up on.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon of two processors, for one test."""
    made = Daemon()
    yield made
    made.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Daemons that may become one cluster, for one test."""
    made = Hosts()
    try:
        yield made
    finally:
        for each in made.daemons:
            each.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    """A daemon for all tests of a module that leave it as it was."""
    made = Daemon()
    yield made
    made.close()


@pytest.fixture(scope="module")
def program(shared: Daemon) -> Iterator[Daemon]:
    """This very process as a program of the module's daemon."""
    abi.shutdown()
    abi.init(address=str(shared.runtime_dir))
    yield shared
    abi.shutdown()
