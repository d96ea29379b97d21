"""Two locks: who runs here, and whose processes are still about."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from abid import lock


def test_the_second_is_told_who_runs(tmp_path: Path) -> None:
    fd = lock.take(tmp_path)
    with pytest.raises(lock.AlreadyRunning, match=f"pid {os.getpid()}"):
        lock.take(tmp_path)
    os.close(fd)
    os.close(lock.take(tmp_path))


@pytest.mark.parametrize("before", ["", "4194305\n"])  # no pid is as high
def test_one_that_has_just_begun_is_told_by_its_pid_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    fd = lock.take(tmp_path)
    os.ftruncate(fd, 0)
    os.pwrite(fd, before.encode(), 0)
    monkeypatch.setattr("abid.lock.time.sleep", lambda seconds: lock.rename_owner(fd))
    with pytest.raises(lock.AlreadyRunning, match=f"pid {os.getpid()},"):
        lock.take(tmp_path)
    os.close(fd)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "abid.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic link|Too many levels"):
        lock.take(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_the_estate_is_free_when_its_last_heir_is_gone(tmp_path: Path) -> None:
    fd = lock.take_estate(tmp_path)
    heir = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[fd]
    )
    os.close(fd)
    with pytest.raises(lock.AlreadyRunning, match="earlier daemon"):
        lock.take_estate(tmp_path, wait_s=0)
    taken = threading.Event()

    def take() -> None:
        os.close(lock.take_estate(tmp_path, wait_s=30))
        taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    heir.communicate()
    assert taken.wait(30)
    waiting.join()
