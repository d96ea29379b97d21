"""How a daemon starts, says that it is ready, drains, and ends."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import BIN, WAIT_S, Daemon, Place, Program, alive, await_gone, eventually, state_of


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    if made.run("abid", "status").returncode == 0:
        made.run("abid", "stop", "--now")
    eventually(lambda: not made.processes(), "everything is gone")
    made.close()


@contextmanager
def running(*flags: str, **options: Any) -> Iterator[Daemon]:
    made = Daemon(*flags, **options)
    try:
        yield made
    finally:
        made.close()


def await_end(pid: int) -> None:
    """Until a process that is no child of ours has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([fd], [], [], WAIT_S)[0], f"process {pid} goes on"
    os.close(fd)


# Starting.


def test_in_the_foreground_until_it_is_told_to_stop() -> None:
    with running() as daemon:
        assert daemon.run("abid", "status").returncode == 0
        assert f"pid {daemon.pid}" in daemon.run("abid", "status").stdout
        assert json.loads(daemon.run("abid", "status", "--json").stdout)["pid"] == daemon.pid
        done = daemon.run("abid", "stop")
        assert (done.returncode, done.stdout) == (0, f"abid stopped: pid {daemon.pid}\n")
        assert daemon.wait() == 0
        assert daemon.run("abid", "status").returncode == 69
        assert daemon.run("abid", "stop").returncode == 69
        assert daemon.run("abi", "status").returncode == 69
        assert not (daemon.runtime_dir / "abid.sock").exists()
        daemon.start()
        assert daemon.run("abi", "submit", "--", "true").returncode == 0


def test_into_the_background_and_ready_when_it_returns(place: Place) -> None:
    done = place.run("abid", "start", "-d")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pid = int(re.fullmatch(rf"abid runs: pid (\d+), in {place.runtime_dir}\n", done.stdout)[1])  # type: ignore[index]
    assert place.json("abi", "status")["pid"] == pid
    assert place.run("abi", "submit", "--", "true").returncode == 0
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    log = [json.loads(line) for line in (place.runtime_dir / "abid.log").read_text().splitlines()]
    assert log[0]["message"].startswith(f"ready: pid {pid}")
    assert place.run("abid", "stop").returncode == 0
    assert not alive(pid)


def test_a_start_into_the_background_that_fails_says_why(place: Place) -> None:
    (place.state_dir / "identity.json").write_text("{")
    done = place.run("abid", "start", "-d")
    assert (done.returncode, done.stdout) == (78, "")
    assert "identity.json is damaged" in done.stderr
    assert "restore it" in done.stderr


@pytest.mark.parametrize("flags", [[], ["-d"]])
def test_what_the_file_system_refuses_is_one_sentence(place: Place, flags: list[str]) -> None:
    (place.state_dir / "identity.json").mkdir()
    done = place.run("abid", "start", *flags)
    assert done.returncode == 1
    assert "identity.json" in done.stderr
    assert "Is a directory" in done.stderr
    assert "Traceback" not in done.stderr
    eventually(lambda: not place.processes(), "its zygote is gone too")


def test_a_zygote_that_does_not_end_is_killed(daemon: Daemon) -> None:
    """Somebody stopped it: it hears of no end, and would stay for ever with all that it had forked."""
    job = daemon.run("abi", "submit", "-d", "--", "sleep", "1000").stdout.strip()
    eventually(lambda: daemon.ask("show", target=job)["pid"], "it runs")
    for pid in set(daemon.processes()) - {daemon.pid}:
        os.kill(pid, signal.SIGSTOP)
    assert daemon.run("abid", "stop", "--now").returncode == 0
    eventually(lambda: not daemon.processes(), "its zygote is gone too")


def test_a_place_that_is_taken_by_something_else(place: Place) -> None:
    (place.runtime_dir / "abid.sock").write_text("mine")
    done = place.run("abid", "start", "-d")
    assert done.returncode == 1
    assert "exists and is no socket" in done.stderr
    assert (place.runtime_dir / "abid.sock").read_text() == "mine"


_NEVER_OPEN = """
import asyncio, sys
from abid.network import Network

async def never(self):
    await asyncio.Event().wait()

Network.open = never
from abid.main import main
sys.exit(main())
"""


def test_a_stop_while_the_network_opens_is_the_end_and_nothing_is_said_to_be_ready(place: Place) -> None:
    """A member whose certificate ran out asks for another before it takes part, for as long as that takes."""
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-c", _NEVER_OPEN, "start", "--ready-fd", str(write_fd)]
    process = subprocess.Popen(command, env=place.environment, pass_fds=[write_fd], stderr=subprocess.PIPE)
    os.close(write_fd)
    eventually(lambda: place.run("abid", "status").returncode == 0, "it serves")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said.decode()
    with open(read_fd) as ready:
        assert ready.read() == ""
    assert b"ready: pid" not in said
    assert b"stopped" in said
    assert sorted(path.name for path in place.runtime_dir.glob("*.sock")) == []


def test_a_second_start_says_who_runs_and_disturbs_nobody() -> None:
    with running() as daemon:
        program = daemon.open("abi", "submit", "--", "sh", "-c", "echo begun; read x < " + daemon.fifo("go"))
        program.await_out(b"begun\n")
        for flags in ([], ["-d"]):
            done = daemon.run("abid", "start", *flags)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"abid already runs here: pid {daemon.pid}, in {daemon.runtime_dir}" in done.stderr
        (daemon.folder / "go").write_text("go\n")
        assert program.wait() == 0


def test_help_says_what_each_command_does(place: Place) -> None:
    commands = {
        "start": "foreground",
        "stop": "running work",
        "status": "busy",
        "reload": "again",
        "install-service": "unit",
    }
    for command, word in commands.items():
        done = place.run("abid", command, "--help")
        assert done.returncode == 0
        usage, description = done.stdout.split("\n\n")[:2]
        assert usage.startswith("usage: abid")
        assert word in description, command


def test_two_daemons_do_not_share_one_identity() -> None:
    with running() as daemon, running() as other:
        assert daemon.json("abi", "status")["node"] != other.json("abi", "status")["node"]
        third = Place()
        done = third.run("abid", "start", env={"ABI_STATE_DIR": str(daemon.state_dir)})
        assert done.returncode == 1
        assert f"pid {daemon.pid}" in done.stderr
        assert "ABI_STATE_DIR" in done.stderr
        third.close()


def test_identity_stays_and_every_life_is_counted(place: Place) -> None:
    seen = []
    for _ in range(2):
        assert place.run("abid", "start", "-d").returncode == 0
        seen.append(place.json("abi", "status")["node"])
        assert place.run("abid", "stop").returncode == 0
    assert seen[0] == seen[1]
    assert json.loads((place.state_dir / "identity.json").read_text())["incarnation"] == 2


def test_directories_and_socket_are_its_own(place: Place) -> None:
    place.runtime_dir.chmod(0o755)
    assert place.run("abid", "start", "-d").returncode == 0
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (
            place.runtime_dir,
            place.state_dir,
            place.runtime_dir / "abid.sock",
            place.runtime_dir / "abid.log",
        )
    }
    assert modes == {"run": 0o700, "state": 0o700, "abid.sock": 0o600, "abid.log": 0o600}


def test_a_path_that_is_too_long_for_a_socket() -> None:
    deep = "/".join(["a-directory-with-a-rather-long-name"] * 4)
    with running(runtime_dir=deep) as daemon:
        assert len(str(daemon.runtime_dir)) > 107
        assert daemon.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
        assert daemon.json("abi", "status")["runtime_dir"] == str(daemon.runtime_dir)
        assert daemon.run("abid", "stop").returncode == 0
        assert daemon.wait() == 0


@pytest.mark.parametrize("home", [None, "", "relative", "/nowhere/at/all"])
def test_a_home_that_is_none(home: str | None) -> None:
    place = Place()
    environment = {name: value for name, value in place.environment.items() if name not in ("HOME", "ABI_STATE_DIR")}
    environment["XDG_STATE_HOME"] = str(place.home)
    if home is not None:
        environment["HOME"] = home
    place.environment = environment
    assert place.run("abid", "start", "-d").returncode == 0
    assert place.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
    assert place.run("abid", "stop").returncode == 0
    place.close()


def test_with_every_standard_stream_closed(place: Place) -> None:
    subprocess.run(
        ["sh", "-c", f'exec "{BIN}/abid" start -d <&- >&- 2>&-'], env=place.environment, timeout=WAIT_S, check=True
    )
    assert place.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
    assert place.run("abid", "stop").returncode == 0
    process = subprocess.Popen(["sh", "-c", f'exec "{BIN}/abid" start <&- >&- 2>&-'], env=place.environment)
    eventually(lambda: place.run("abid", "status").returncode == 0, "it runs")
    assert place.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
    process.send_signal(signal.SIGUSR1)  # its stacks have nowhere to go
    assert place.run("abi", "status").returncode == 0
    assert place.run("abid", "stop").returncode == 0
    assert process.wait(WAIT_S) == 0


def test_what_its_starter_had_open_is_let_go(place: Place) -> None:
    """A script that waits for the end of a pipe is not held up by the daemon that it started, nor by its zygote."""
    read_end, write_end = os.pipe()
    done = place.run("abid", "start", "-d", pass_fds=[write_end])
    assert done.returncode == 0
    os.close(write_end)
    assert select.select([read_end], [], [], WAIT_S)[0]
    assert os.read(read_end, 1) == b""
    assert place.run("abid", "stop").returncode == 0
    os.close(read_end)


def test_a_private_daemon_ends_with_its_owner() -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    with running("--owner", str(owner.pid)) as daemon:
        program = daemon.open("abi", "submit", "--", "sh", "-c", "echo $$; sleep 1000")
        job = int(program.await_out(b"\n"))
        owner.kill()
        owner.wait()
        assert daemon.wait() == 0
        await_gone([job])
        assert program.wait() == 69
    gone = subprocess.Popen(["true"])
    gone.wait()
    late = Place()  # and one whose owner was gone before it began does not stay
    done = late.run("abid", "start", "--owner", str(gone.pid))
    assert done.returncode == 0
    late.close()


# Stopping.


def begun(daemon: Daemon, script: str) -> Program:
    program = daemon.open("abi", "submit", "--", "sh", "-c", f"echo begun; {script}")
    program.await_out(b"begun\n")
    return program


_PATIENT = """
import sys
import abid.start
from abid.main import main
abid.start.ASK_S = 25
"""
"""A second daemon that gives the first more time to say that it is stopping."""


def test_a_drain_lets_what_runs_finish_and_admits_nothing() -> None:
    with running() as daemon:
        fifo = daemon.fifo("go")
        first = begun(daemon, f"read x < {fifo}; head -c 20000000 /dev/zero; exit 9")
        second = begun(daemon, "true")
        assert second.wait() == 0
        queued = daemon.open("abi", "submit", "--cpus", "2", "--", "true")
        eventually(lambda: daemon.ask("status")["jobs"]["queued"] == 1, "it is queued")
        daemon.kill(signal.SIGTERM)
        eventually(lambda: daemon.ask("status")["state"] == "draining", "it drains")
        refused = daemon.run("abi", "submit", "--json", "--", "true")
        assert refused.returncode == 75
        assert json.loads(refused.stderr)["error"]["message"] == "the daemon is stopping"
        for flags in ([], ["-d"]):
            early = daemon.python(f"{_PATIENT}sys.argv = ['abid', 'start', *{flags!r}]\nsys.exit(main())")
            assert early.returncode == 1
            assert f"pid {daemon.pid}" in early.stderr
            assert "is stopping (it waits for running work, at most 30 s)" in early.stderr
            assert "try again then, or `abid stop --now`" in early.stderr
        assert alive(daemon.pid)
        Path(fifo).write_text("go\n")
        assert first.wait() == 9
        assert len(first.out) == len("begun\n") + 20_000_000  # the last words too
        assert queued.wait() == 69
        assert b"the daemon stopped" in queued.err
        assert daemon.wait() == 0


def test_a_drain_does_not_last_longer_than_it_may() -> None:
    with running(config="[daemon]\ndrain_timeout_ms = 200\n") as daemon:
        program = begun(daemon, "trap '' TERM; setsid sleep 1000 & echo $! $$; sleep 1000")
        pids = [int(word) for word in program.await_out(b"\n").split()[1:]]
        eventually(lambda: len(program.await_out(b"\n").split()) == 3 or program._read_one(), "both pids")
        pids = [int(word) for word in program.out.split()[1:]]
        daemon.kill(signal.SIGTERM)
        assert daemon.wait() == 0
        assert program.wait() == 69
        await_gone(pids)


@pytest.mark.parametrize("second", ["signal", "stop --now"])
def test_a_second_word_ends_it_at_once(second: str) -> None:
    with running() as daemon:
        program = begun(daemon, "echo $$; trap '' TERM; sleep 1000")
        daemon.kill(signal.SIGTERM)
        daemon.await_log("draining")
        if second == "signal":
            daemon.kill(signal.SIGTERM)
        else:
            assert daemon.run("abid", "stop", "--now").returncode == 0
        assert daemon.wait() == 0
        assert program.wait() == 69


def test_stop_waits_for_the_end() -> None:
    with running() as daemon:
        fifo = daemon.fifo("go")
        program = begun(daemon, f"read x < {fifo}; exit 3")
        stop = daemon.open("abid", "stop")
        eventually(lambda: daemon.ask("status")["state"] == "draining", "it drains")
        assert stop.process.poll() is None
        Path(fifo).write_text("go\n")
        assert program.wait() == 3
        assert stop.wait() == 0
        assert not alive(daemon.pid)


def test_ctrl_c_in_the_foreground_drains() -> None:
    with running() as daemon:
        daemon.kill(signal.SIGINT)
        assert daemon.wait() == 0
        assert "SIGINT: draining" in daemon.log()


# Words to others.


def test_stacks_on_demand() -> None:
    with running() as daemon:
        daemon.kill(signal.SIGUSR1)
        daemon.await_log('daemon.py", line')
        assert "most recent call first" in daemon.log()
        assert daemon.run("abi", "status").returncode == 0


def test_the_log_is_json_in_a_file_and_text_on_a_terminal(place: Place) -> None:
    with running() as daemon:
        assert daemon.run("abi", "submit", "--", "true").returncode == 0
        daemon.kill(signal.SIGTERM)
        assert daemon.wait() == 0
        lines = [json.loads(line) for line in daemon.log().splitlines()]
        assert lines[-1]["message"] == "stopped"
        assert {"time", "level", "logger", "message"} <= set(lines[0])
    master, slave = os.openpty()
    process = subprocess.Popen(
        [str(BIN / "abid"), "start"], env=place.environment, stderr=slave, stdin=subprocess.DEVNULL
    )
    os.close(slave)
    seen = b""
    while b"ready: pid" not in seen:
        assert select.select([master], [], [], WAIT_S)[0], seen
        seen += os.read(master, 4096)
    assert re.search(rb"^\d\d:\d\d:\d\d\.\d{3} \x1b\[36minfo\x1b\[0m ready: pid", seen, re.MULTILINE)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    os.close(master)


def test_systemd_is_told(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(WAIT_S)

        def told() -> dict[str, str]:
            return dict(line.split("=", 1) for line in listener.recv(4096).decode().splitlines())

        with running(NOTIFY_SOCKET=address, WATCHDOG_USEC="400000") as daemon:
            while "READY" not in (ready := told()):
                assert ready == {"WATCHDOG": "1"}
            assert (ready["READY"], ready["MAINPID"]) == ("1", str(daemon.pid))
            assert told() == {"WATCHDOG": "1"}
            daemon.kill(signal.SIGHUP)
            while "RELOADING" not in (words := told()):
                assert words == {"WATCHDOG": "1"}
            assert int(words["MONOTONIC_USEC"]) > 0
            while (words := told()) != {"READY": "1"}:
                assert words == {"WATCHDOG": "1"}
            os.kill(daemon.pid, signal.SIGSTOP)  # a loop that does not run feeds nobody
            eventually(lambda: state_of(daemon.pid) == "T", "it is stopped")
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                while True:
                    told()
            listener.settimeout(1)
            with pytest.raises(TimeoutError):
                told()
            os.kill(daemon.pid, signal.SIGCONT)
            listener.settimeout(WAIT_S)
            assert told() == {"WATCHDOG": "1"}
            daemon.kill(signal.SIGTERM)
            while "STOPPING" not in (words := told()):
                assert words == {"WATCHDOG": "1"}
            assert daemon.wait() == 0


def test_a_python_that_cannot_import_says_so_in_the_foreground(place: Place) -> None:
    """`python -m abid` is the same as `abid`."""
    done = subprocess.run(
        [sys.executable, "-m", "abid", "status"], env=place.environment, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 69
    assert "abid does not run" in done.stdout
