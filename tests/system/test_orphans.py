"""Nothing outlives whom it belongs to: two seconds after a kill -9 of daemon, zygote, worker or client, all below it is
gone.

Who is alive is told by the kernel: all processes of a test hold the write end of one named pipe open, and the test's
read end sees its end when the last of them has gone, whatever session it has made for itself and whoever its parent is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import abi
from abi import errors
from tests.system.harness import GONE_S, ORPHAN_S, Daemon, alive, await_gone, below, eventually, parent_of, state_of
from tests.system.inside import inside, session, start
from tests.system.words import Ear, hold, say

# A family of a task, all of which hold the pipe: a child, one in a session of its own, a daemon made by double fork
# that ignores what can be ignored, and one that never stays the same process for long.
FAMILY = """
import os, signal, subprocess, sys, time

def make_family(pipe):
    subprocess.Popen(["sleep", "600"], pass_fds=[pipe])
    subprocess.Popen(["sleep", "600"], pass_fds=[pipe], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        os.closerange(0, 3)
        while True:
            time.sleep(600)
    if os.fork() == 0:
        while True:  # a runner: forks and goes, again and again
            time.sleep(0.001)
            if os.fork():
                os._exit(0)
            os.setsid()
"""


LOOK_S = 0.1


class Family:
    """The test's end of the pipe."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = str(folder / "alive")
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def is_gone(self) -> bool:
        """Whether nobody holds the pipe any more. It must have been held before."""
        return os.read(self._fd, 1) == b"" if self._readable(0) else False

    def await_gone(self) -> None:
        """Within ``ORPHAN_S`` by a clock that stands still while we do: what kept us waiting, kept everybody."""
        deadline, left_s = time.monotonic() + GONE_S, float(ORPHAN_S)
        while left_s > 0 and time.monotonic() < deadline:
            began = time.monotonic()
            if self._readable(LOOK_S):
                assert os.read(self._fd, 1) == b""
                return
            if time.monotonic() - began < 1.2 * LOOK_S:
                left_s -= LOOK_S
        raise AssertionError(f"somebody still lives after {ORPHAN_S} s: {self.holders()}")

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._fd], [], [], seconds)[0])

    def holders(self) -> list[tuple[int, str]]:
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
                if self.path in links and pid != os.getpid():
                    found.append((pid, Path(f"/proc/{pid}/cmdline").read_text()))
            except OSError:
                continue
        return found

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    made = Family(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(tmp_path)
    yield made
    made.close()


PROGRAM = (
    FAMILY
    + """
import abi, abi.returning
from tests.system.words import hold, say

abi.returning.RETURN_SECONDS = 100  # for the next daemon, however long that takes to start
ear, alive, gate = sys.argv[1:]

@abi.remote(max_retries=0)
def task():
    make_family(os.open(alive, os.O_WRONLY))
    say(ear, os.getpid())
    hold(gate)

abi.get([task.remote(), task.remote()])
"""
)


@pytest.mark.parametrize("victim", ["daemon", "zygote", "worker", "client", "terminated daemon", "client's farewell"])
def test_nothing_is_left_two_seconds_after(victim: str, family: Family, ear: Ear, tmp_path: Path) -> None:
    daemon = Daemon()
    client = start(daemon, "-c", PROGRAM, ear.path, family.path, str(tmp_path / "gate"))
    try:
        workers = [int(ear.hear()), int(ear.hear())]
        zygote = parent_of(workers[0])
        assert not family.is_gone()
        match victim:
            case "daemon":
                daemon.kill()
            case "terminated daemon":
                daemon.kill(signal.SIGTERM)
                daemon.await_log("draining")
                daemon.kill(signal.SIGTERM)
            case "zygote":
                os.kill(zygote, signal.SIGKILL)
            case "worker":
                for worker in workers:
                    os.kill(worker, signal.SIGKILL)
            case "client":
                client.signal(signal.SIGKILL)
            case _:
                client.signal(signal.SIGINT)
        family.await_gone()
        await_gone(workers)
        if "daemon" in victim:
            daemon.wait()
            await_gone([zygote])
            assert not daemon.processes()
        else:
            assert alive(daemon.pid)
            eventually(lambda: not zombies_below(daemon.pid), "no zombies")
    finally:
        client.close()
        daemon.close()


def zombies_below(pid: int) -> list[int]:
    return [one for one in below(pid) if state_of(one) == "Z"]


def test_a_command_and_its_family_end_with_their_daemon(family: Family, tmp_path: Path) -> None:
    daemon = Daemon()
    script = (
        FAMILY + f"make_family(os.open({family.path!r}, os.O_WRONLY))\nprint('made', flush=True)\ntime.sleep(600)\n"
    )
    submit = daemon.open("abi", "submit", "--", sys.executable, "-c", script)
    try:
        submit.await_out(b"made")
        daemon.kill()
        family.await_gone()
    finally:
        submit.close()
        daemon.close()


def test_what_an_ended_command_left_running_ends_with_it(family: Family) -> None:
    daemon = Daemon()
    try:
        script = FAMILY + f"make_family(os.open({family.path!r}, os.O_WRONLY))\n"
        done = daemon.run("abi", "submit", "--", sys.executable, "-c", script)
        assert done.returncode == 0, done.stderr
        family.await_gone()
        eventually(lambda: not zombies_below(daemon.pid), "no zombies")
    finally:
        daemon.close()


def test_what_a_task_left_running_lives_as_long_as_its_session(family: Family) -> None:
    """A task may start a server for those after it; it goes with its program at the latest."""
    path = family.path

    @abi.remote
    def starts_a_server() -> int:
        pipe = os.open(path, os.O_WRONLY)
        pid = subprocess.Popen(["sleep", "600"], pass_fds=[pipe], start_new_session=True).pid
        os.close(pipe)
        return pid

    daemon = Daemon()
    try:
        with session(daemon):
            server = abi.get(starts_a_server.remote())
            assert abi.get(abi.remote(alive).remote(server))
        family.await_gone()
        eventually(lambda: not state_of(server), "it is reaped, too")
    finally:
        daemon.close()


def test_forced_cancels_and_time_limits_take_the_family_along(ear: Ear, tmp_path: Path) -> None:
    path, gate = ear.path, str(tmp_path / "gate")
    text = FAMILY

    @abi.remote
    def task(alive_path: str) -> None:
        own: dict[str, object] = {}
        exec(text, own)
        own["make_family"](os.open(alive_path, os.O_WRONLY))  # type: ignore[operator]
        word = "made"
        while True:
            try:
                if word:
                    say(path, word)
                word = ""
                hold(gate)
            except KeyboardInterrupt:
                continue

    with inside(config="[workers]\ninterrupt_grace_ms = 100\n") as daemon:
        for limit_s in (0.3, 3, 15):  # the first that was enough for its family to be there
            with contextlib.closing(Family(tmp_path / str(limit_s))) as family:
                with pytest.raises(errors.TaskTimedOut):
                    abi.get(task.options(timeout=limit_s).remote(family.path), timeout=30)
                if ear.heard():
                    family.await_gone()
                    break
        else:
            pytest.fail("it never came so far")
        with contextlib.closing(Family(tmp_path / "forced")) as family:
            ref = task.remote(family.path)
            ear.hear()
            abi.cancel(ref, force=True)
            with pytest.raises(errors.WorkerCrashedError):
                abi.get(ref, timeout=20)
            family.await_gone()
        eventually(lambda: not zombies_below(daemon.pid), "no zombies")


def test_no_zombies_stay_below_a_daemon() -> None:
    """Children that a task did not wait for, and orphans of these. A worker may not reap what may be its user's; it
    leaves when it is idle, and its zygote reaps."""

    @abi.remote
    def leaves_zombies() -> int:
        for _ in range(5):
            subprocess.Popen(["true"])
            subprocess.Popen("true & true &", shell=True)
        return os.getpid()

    with inside() as daemon:
        workers = set(abi.get([leaves_zombies.remote() for _ in range(10)]))
        eventually(lambda: not zombies_below(daemon.pid), "no zombies")
        await_gone(workers)
        assert abi.get(leaves_zombies.remote()) not in workers, "the next task has another worker, and nothing was lost"


def test_a_busy_worker_does_not_gather_zombies_for_ever() -> None:
    @abi.remote(max_retries=0)
    def leaves_orphans() -> int:
        for _ in range(10):
            subprocess.run("true &", shell=True)
        return os.getpid()

    with inside(cpus=1) as daemon:
        deadline = time.monotonic() + 60
        workers = set()
        most = 0
        while time.monotonic() < deadline and len(workers) < 2:
            workers.update(abi.get([leaves_orphans.remote() for _ in range(10)]))
            most = max(most, len(zombies_below(daemon.pid)))
        assert len(workers) >= 2, f"{most} zombies, and it goes on"
        assert most < 5000


def test_a_waiting_parent_is_not_robbed_of_its_childs_status() -> None:
    """Nobody else reaps what a task waits for by itself, however long it waits."""

    @abi.remote
    def waits() -> list[int]:
        processes = [subprocess.Popen(["sh", "-c", f"exit {n}"]) for n in range(5)]
        time.sleep(0.05)
        return [process.wait() for process in processes]

    with inside():
        assert abi.get([waits.remote() for _ in range(10)], timeout=20) == [[0, 1, 2, 3, 4]] * 10


def test_a_new_daemon_waits_until_all_of_the_old_one_is_gone(family: Family, ear: Ear, tmp_path: Path) -> None:
    """Otherwise a task that is sent again would run beside its former self."""
    daemon = Daemon()
    client = start(
        daemon, "-c", PROGRAM.replace("max_retries=0", "max_retries=3"), ear.path, family.path, str(tmp_path / "gate")
    )
    try:
        workers = {int(ear.hear()), int(ear.hear())}
        daemon.kill()
        daemon.wait()
        daemon.start()
        again = int(ear.hear())
        assert not any(alive(worker) for worker in workers), "the first start is over before the second begins"
        assert again not in workers
    finally:
        client.close()
        daemon.close()
    family.await_gone()
