"""How the end of a private daemon is told: by its exit status, and by what its log says of trouble."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abi import private
from abi.private import PrivateDaemon

CALM = """{"time": 1.5, "level": "info", "logger": "abid.daemon", "message": "ready"}
<6>abid.daemon: ready
12:00:00.000 info abid.node: a session begins
"""
TROUBLE = '{"time": 1.5, "level": "error", "logger": "abid.node", "message": "no room"}'


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], PrivateDaemon]]:
    """Another program in the daemon's place, with a log that it left."""
    made: list[PrivateDaemon] = []

    def make(code: str, log: str) -> PrivateDaemon:
        def spawn(_self: PrivateDaemon, *_arguments: object) -> int:
            return os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)

        monkeypatch.setattr(PrivateDaemon, "_spawn", spawn)
        monkeypatch.setattr(private, "DEATH_SECONDS", 60)
        made.append(PrivateDaemon(None, None))
        Path(made[-1].directory, "abid.log").write_text(log)
        return made[-1]

    yield make
    for daemon in made:
        daemon.stop()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 37)", "was killed by signal 37"),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
    ],
)
def test_one_sentence(instead: Callable[[str, str], PrivateDaemon], code: str, words: str) -> None:
    daemon = instead(code, CALM)
    assert daemon.how_it_ended() == daemon.how_it_ended() == f"the private daemon (pid {daemon.pid}) {words}"


def test_with_what_its_log_says_of_trouble(instead: Callable[[str, str], PrivateDaemon]) -> None:
    daemon = instead("raise SystemExit(1)", f"{CALM}{TROUBLE}\nTraceback (most recent call last):\n")
    assert daemon.how_it_ended() == (
        f"the private daemon (pid {daemon.pid}) ended with exit code 1:\n"
        f"    {TROUBLE}\n    Traceback (most recent call last):"
    )


def test_one_that_runs_on(instead: Callable[[str, str], PrivateDaemon], monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = instead("import time; time.sleep(60)", CALM)
    monkeypatch.setattr(private, "DEATH_SECONDS", 0)
    assert daemon.how_it_ended() == f"the private daemon (pid {daemon.pid}) closed the connection, and runs on"


def test_a_number_that_may_be_somebody_else_s_is_not_signalled(
    instead: Callable[[str, str], PrivateDaemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = instead("raise SystemExit(0)", CALM)
    daemon.how_it_ended()
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
    daemon.stop()
    assert not killed
    assert not os.path.exists(daemon.directory)
