"""What a daemon owns, to the last process: nothing outlives it, and what dies below it is missed and reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import (
    Daemon,
    Program,
    alive,
    await_gone,
    below,
    command_line,
    eventually,
    parent_of,
    state_of,
)

SESSIONS = """
echo $$
setsid sh -c 'echo $$; setsid sleep 1000 & echo $!; wait' &
nohup sh -c 'trap "" TERM HUP; echo $$; while :; do sleep 1000; done' 2>/dev/null &
wait
"""
"""A command with children in sessions of their own, and one that will not hear: four pids."""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


def family(daemon: Daemon) -> tuple[Program, list[int]]:
    """A command with descendants that left its session, and all their pids."""
    program = daemon.open("abi", "submit", "--", "sh", "-c", SESSIONS)
    while program.out.count(b"\n") < 4:
        assert program._read_one()
    pids = [int(word) for word in program.out.split()]
    assert all(alive(pid) for pid in pids)
    return program, pids


def zygote_of(daemon: Daemon) -> int:
    return next(pid for pid in below(daemon.pid) if parent_of(pid) == daemon.pid and b"abi_worker" in command_line(pid))


def supervisor_of(pid: int) -> int:
    """The nearest ancestor that is one of ours."""
    while b"abi_worker" not in command_line(pid):
        pid = parent_of(pid)
    return pid


def test_processes_show_whose_they_are(daemon: Daemon) -> None:
    _, pids = family(daemon)
    ours = [zygote_of(daemon), supervisor_of(pids[0])]
    for pid in ours:
        words = command_line(pid).split(b"\0")
        assert b"abi_worker" in words
        assert os.fsencode(daemon.runtime_dir) in words
    assert Path(f"/proc/{ours[0]}/comm").read_text() == "abi_zygote\n"


def test_nothing_outlives_a_daemon_that_is_killed(daemon: Daemon) -> None:
    program, pids = family(daemon)
    everything = [*below(daemon.pid), *pids]
    daemon.kill()
    daemon.wait()
    await_gone(everything)
    assert program.wait() == 69
    daemon.start()  # at once: the estate of the first is empty
    assert daemon.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"


PATIENT = """
import sys
import abid.lock
from abid.main import main
abid.lock.take_estate.__defaults__ = (100,)
sys.exit(main())
"""
"""A daemon that waits longer for the estate of the one before."""


def test_a_restart_begins_nothing_before_the_old_estate_is_empty(daemon: Daemon) -> None:
    """The zygote is stopped, so it cannot notice its daemon's death: a new daemon waits for it."""
    _, pids = family(daemon)
    zygote = zygote_of(daemon)
    os.kill(zygote, signal.SIGSTOP)
    daemon.kill()
    daemon.wait()
    second = Program([sys.executable, "-c", PATIENT, "start", "-c", str(daemon.config_file)], daemon.environment)
    eventually(lambda: b"zygote.lock" in _open_files(second.pid), "it waits for the lock")
    assert daemon.run("abid", "status").returncode == 69
    assert alive(second.pid)
    os.kill(zygote, signal.SIGCONT)
    await_gone([zygote, *pids])
    eventually(lambda: daemon.run("abid", "status").returncode == 0, "it runs")
    second.signal(signal.SIGTERM)
    assert second.wait() == 0


def _open_files(pid: int) -> bytes:
    names = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(os.fsencode(entry.readlink()))
        except OSError:
            continue
    return b"\n".join(names)


def test_a_zygote_that_is_killed_takes_its_own_along_and_nobody_else(daemon: Daemon) -> None:
    program, pids = family(daemon)
    zygote = zygote_of(daemon)
    os.kill(zygote, signal.SIGKILL)
    await_gone([zygote, *pids])
    assert daemon.run("abi", "submit", "--", "echo", "next").stdout == "next\n"
    # The command was not at fault, so it runs again; its follower sees that too.
    while program.out.count(b"\n") < 8:
        assert program._read_one()
    assert daemon.json("abi", "show", daemon.json("abi", "jobs")["jobs"][0]["id"])["attempt"] == 2
    assert daemon.run("abi", "cancel", "--force", daemon.json("abi", "jobs")["jobs"][0]["id"]).returncode == 0
    program.wait()
    await_gone(int(word) for word in program.out.split())


def test_a_supervisor_that_is_killed_leaves_nothing(daemon: Daemon) -> None:
    program, pids = family(daemon)
    supervisor = supervisor_of(pids[0])
    os.kill(supervisor, signal.SIGKILL)
    await_gone([supervisor, *pids])
    daemon.run("abi", "cancel", "--force", daemon.json("abi", "jobs")["jobs"][0]["id"])
    program.wait()
    await_gone(int(word) for word in program.out.split())


def test_there_are_no_zombies(daemon: Daemon) -> None:
    """Neither of commands, nor of their children, nor of zygotes."""
    script = "for i in 1 2 3; do sleep 0.01 & done; setsid sh -c 'sleep 0.02 & exit 0' & exit 0"
    for _ in range(3):
        assert daemon.run("abi", "submit", "--", "sh", "-c", script).returncode == 0
    os.kill(zygote_of(daemon), signal.SIGKILL)
    assert daemon.run("abi", "submit", "--", "true").returncode == 0
    eventually(
        lambda: not [pid for pid in below(daemon.pid) if state_of(pid) == "Z"],
        f"no zombies: {[(pid, command_line(pid)) for pid in below(daemon.pid) if state_of(pid) == 'Z']}",
    )


def test_orphans_that_come_to_the_daemon_itself_are_ended(daemon: Daemon) -> None:
    """Zygote and supervisor killed together: what they leave has only the daemon as its next subreaper."""
    program, pids = family(daemon)
    zygote, supervisor = zygote_of(daemon), supervisor_of(pids[0])
    os.kill(zygote, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    await_gone([zygote, supervisor, *pids])
    daemon.run("abi", "cancel", "--force", daemon.json("abi", "jobs")["jobs"][0]["id"])
    program.wait()
    await_gone(int(word) for word in program.out.split())


def test_several_daemons_side_by_side(daemon: Daemon) -> None:
    other = Daemon()
    try:
        assert daemon.run("abi", "submit", "-d", "--name", "mine", "--", "true").returncode == 0
        assert other.json("abi", "jobs", "--all")["jobs"] == []
        other.kill()
        other.wait()
        await_gone(other.processes())
        assert daemon.run("abi", "submit", "--", "true").returncode == 0
        assert len(daemon.json("abi", "jobs", "--all")["jobs"]) == 2
    finally:
        other.close()


KNOCK = """
import json, os, socket, struct, sys
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
sock.connect(sys.argv[1])
data = b""
while chunk := sock.recv(65536):
    data += chunk
print(json.loads(data[8:])["code"], json.loads(data[8:])["message"])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else, to be refused as such")
def test_another_user_is_refused(daemon: Daemon) -> None:
    """Even one whom the directories let through: before a word of it is read, and whatever it says."""
    socket_path = daemon.runtime_dir / "abid.sock"
    for folder in (daemon.folder, daemon.runtime_dir):
        folder.chmod(0o755)
    socket_path.chmod(0o666)
    done = subprocess.run(
        [sys.executable, "-c", KNOCK, str(socket_path)], capture_output=True, text=True, timeout=30, cwd="/"
    )
    assert done.stdout == "denied this daemon serves uid 0; you are uid 65534\n", done.stderr
    assert daemon.run("abi", "status").returncode == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else, to be refused as such")
def test_another_user_does_not_get_through_the_directory(daemon: Daemon) -> None:
    daemon.folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", KNOCK, str(daemon.runtime_dir / "abid.sock")],
        capture_output=True, text=True, timeout=30, cwd="/",
    )  # fmt: skip
    assert "PermissionError" in done.stderr
