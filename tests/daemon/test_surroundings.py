"""What surrounds the daemon: systemd, the log's reader, the unit file, the cgroup."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from abid import install, logs, notify, resources


def test_words_reach_the_notify_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.notify("READY=1", "STATUS=well")
        assert listener.recv(100) == b"READY=1\nSTATUS=well"


def test_silence_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.notify("READY=1")


def test_the_watchdog_is_for_the_process_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval_s() == 15
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_interval_s() == 0


def test_a_loop_that_lags_does_not_feed_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")  # to be fed each 10 ms, and so often it beats
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    fed: list[float] = []
    loop = asyncio.new_event_loop()
    pulse = notify.Pulse(loop, 0.05, lambda: fed.append(time.monotonic()))

    async def until_it_is_fed() -> None:
        while not fed:  # noqa: ASYNC110 - the pulse tells nobody
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(until_it_is_fed(), 60))
    pulse.stop()
    before = len(fed)
    pulse._fed = pulse._beat_at = time.monotonic() - 1  # it is time to feed it, and this beat is late
    pulse._beat()
    assert len(fed) == before
    assert pulse.p99_s() > 0.05
    pulse._beat_at = time.monotonic() + 1
    pulse._beat()
    assert len(fed) == before + 1, "it was for this alone"
    pulse.stop()
    loop.close()


def record(level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("abid.test", level, __file__, 1, "two\nlines of %s", ("it",), None)


def test_the_journal_gets_a_priority_on_each_line() -> None:
    assert logs.JournalFormatter().format(record()) == "<4>two\n<4>lines of it"


def test_a_collector_gets_one_object_a_line() -> None:
    line = logs.JsonFormatter().format(record(logging.ERROR))
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines of it"
    assert json.loads(line)["level"] == "error"


def test_colour_is_for_terminals() -> None:
    assert "\x1b" in logs.TextFormatter(colour=True).format(record())
    assert "\x1b" not in logs.TextFormatter(colour=False).format(record())


def test_the_form_follows_from_what_stderr_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "err", "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        root = logging.getLogger()
        before = root.handlers[:], root.level
        try:
            logs.configure("info", "auto")
            assert isinstance(root.handlers[0].formatter, logs.JsonFormatter)
            found = os.fstat(file.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
            logs.configure("info", "auto")
            assert isinstance(root.handlers[0].formatter, logs.JournalFormatter)
        finally:
            root.handlers[:], root.level = before


def test_the_unit_names_this_abid_and_a_users_has_no_user() -> None:
    template = (Path(__file__).parents[2] / "configs" / "abid.service").read_text()
    system = install.unit_text(template, "/opt/abi/bin/abid", user=False)
    own = install.unit_text(template, "/opt/abi/bin/abid", user=True)
    assert "\nExecStart=/opt/abi/bin/abid start --system\n" in system
    assert "\nExecStart=/opt/abi/bin/abid start\n" in own
    assert "\nUser=abi\n" in system
    for name in install.SYSTEM_ONLY:
        assert f"\n{name}=" not in own
    assert "\nWantedBy=default.target\n" in own


def test_installing_for_a_user_writes_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert install.install_service(user=True) == 0
    unit = tmp_path / "systemd" / "user" / "abid.service"
    assert "abid start\n" in unit.read_text()
    assert f"wrote {unit}" in capsys.readouterr().out


def test_resources_are_what_we_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < resources.cpu_units() <= len(os.sched_getaffinity(0)) * 10_000
    assert 0 < resources.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_cgroup_limits_of_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cpu.max": "150000 100000",
        "memory.max": "1000000",
        "memory.events": "low 0\noom_kill 3",
    }
    for name, text in files.items():
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / name).write_text(text)
    original = resources._lines
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.setattr(
        resources, "_lines", lambda path: ["0::/jobs"] if str(path) == "/proc/self/cgroup" else original(path)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    assert resources.cpu_units() == 15_000
    assert resources.memory_bytes() == 1_000_000
    assert resources.oom_kills() == 3
