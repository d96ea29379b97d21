"""For all tests, in every process that runs them."""

from __future__ import annotations

import signal

import pytest

from tests.hosts import kernel

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and with them all programs that they
# start to see what Ctrl-C does there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """At the end of the whole suite: whether its clusters had hosts of their own, which not every machine can make."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        terminalreporter.write_line(kernel.in_words())
