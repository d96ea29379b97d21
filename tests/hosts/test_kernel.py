"""What is missing is said in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import cast

import pytest

from tests.conftest import pytest_terminal_summary
from tests.hosts import kernel


def test_here_they_are_possible_and_it_says_so() -> None:
    assert kernel.why_not() == ""
    said = subprocess.run([sys.executable, "-m", "tests.hosts"], capture_output=True, text=True)
    assert said.returncode == 0
    assert said.stdout.startswith("hosts for tests: yes")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert kernel.why_not() == "network namespaces need root"


def test_a_missing_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "iproute2" in kernel.why_not()
    assert "nftables" in kernel.why_no_loss()


def test_a_kernel_that_makes_none_is_told_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*command: str, lines: object = ()) -> str:
        raise kernel.CommandFailed(f"{command[0]}: Operation not permitted")

    monkeypatch.setattr(kernel, "tell", refuse)
    assert "Operation not permitted" in kernel.why_not()


def test_the_whole_suite_says_whether_it_had_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said: list[str] = []
    reporter = cast("pytest.TerminalReporter", SimpleNamespace(write_line=said.append))
    for source in (pytest.Config.ArgsSource.ARGS, pytest.Config.ArgsSource.TESTPATHS):
        pytest_terminal_summary(reporter, cast("pytest.Config", SimpleNamespace(args_source=source)))
    assert said == ["hosts for tests: none, network namespaces need root"], "only the whole suite, and in words"
