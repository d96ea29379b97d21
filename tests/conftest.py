"""For all tests, in every process that runs them."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.hosts import kernel

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and with them all programs that they
# start to see what Ctrl-C does there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What an example takes is the machine's business. All else is as hypothesis has it, which where `CI` is set draws the
# same examples each time.
settings.register_profile("abi", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("abi")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """At the end of the whole suite: whether its clusters had hosts of their own, which not every machine can make."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        terminalreporter.write_line(kernel.in_words())
