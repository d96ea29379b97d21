"""A daemon in the foreground of a terminal ends with it, as any other program there; a hang-up alone is a reload."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from collections.abc import Iterator

import pytest

from tests.system.harness import Place, Program, eventually
from tests.system.scripts import status


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


def start(place: Place, *, nohup: bool = False) -> tuple[Program, int]:
    """A daemon that leads the session of a terminal, and the other side of that terminal."""

    def begin() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    master, slave = os.openpty()
    program = place.open("abid", "start", stdin=slave, start_new_session=True, preexec_fn=begin)
    os.close(slave)
    program.await_err(b"ready: pid")
    return program, master


def test_the_terminal_of_an_idle_daemon_closes(place: Place) -> None:
    program, master = start(place)
    os.close(master)
    assert program.wait() == 0
    assert b"SIGHUP, and the terminal is gone: draining" in program.err


def test_a_daemon_whose_terminal_closes_finishes_its_work_and_a_second_hang_up_ends_it(place: Place) -> None:
    program, master = start(place)
    assert place.run("abi", "submit", "-d", "--", "sleep", "1000").returncode == 0
    os.close(master)
    eventually(lambda: status(place)["state"] == "draining", "it drains")
    assert status(place)["tasks"]["running"] == 1
    program.signal(signal.SIGHUP)
    assert program.wait() == 0


@pytest.mark.parametrize("closes", [False, True])
def test_a_hang_up_of_a_terminal_that_is_there_or_does_not_count_reads_the_configuration(
    place: Place, closes: bool
) -> None:
    program, master = start(place, nohup=closes)
    if closes:
        os.close(master)
    program.signal(signal.SIGHUP)
    program.await_err(b"configuration reloaded")
    assert status(place)["state"] == "ready"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    if not closes:
        os.close(master)
