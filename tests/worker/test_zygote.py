"""Births and deaths: whatever dies, nothing that descends from it is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from abi.wire.schema import Command, Empty, Kind
from tests.worker.zygote_harness import Zygote, await_death


def pid() -> int:
    return os.getpid()


def leave_a_grandchild() -> int:
    """Forked twice, with a session of its own: nobody's child any more. Its pid."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write_end, str(os.getpid()).encode())
            while True:
                signal.pause()
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(read_end, 20))


def leave_a_zombie() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def exit_3() -> None:
    os._exit(3)


def test_a_worker_runs_a_call(zygote: Zygote) -> None:
    worker = zygote.worker()
    assert worker.run(pid) == worker.pid
    zygote.side.await_item(Kind.READY)
    assert zygote.worker(2).run(divmod, 7, 2) == (3, 1)


def test_the_status_says_how_a_worker_died(zygote: Zygote) -> None:
    first, second = zygote.worker(1), zygote.worker(2)
    first.define(1, exit_3)
    number = first.call(1)
    assert zygote.exit_of(first) == 3 << 8
    assert first.page.running == number, "the page outlives the worker and says who was running"
    second.run(pid)
    second.kill()
    assert zygote.exit_of(second) == signal.SIGKILL


def test_a_worker_that_is_told_to_stop_leaves(zygote: Zygote) -> None:
    worker = zygote.worker()
    worker.define(7, str)
    number = worker.call(7, 1)
    worker.side.send(Kind.STOP, Empty())
    assert worker.value_of(number) == "1"
    assert zygote.exit_of(worker) == 0


def test_workers_die_with_a_killed_zygote(zygote: Zygote) -> None:
    workers = [zygote.worker(1), zygote.worker(2)]
    for worker in workers:
        worker.run(pid)
    zygote.process.kill()
    for worker in workers:
        await_death(worker.pid)


@pytest.mark.parametrize("how", ["the daemon's end closes", "SIGTERM"])
def test_the_zygote_takes_all_descendants_along(zygote: Zygote, how: str) -> None:
    worker = zygote.worker()
    grandchild = worker.run(leave_a_grandchild)
    if how == "SIGTERM":
        zygote.process.terminate()
    else:
        zygote.side.close()
    await_death(grandchild)
    await_death(worker.pid)
    assert zygote.process.wait(10) == 0


def test_what_a_killed_worker_left_is_killed_and_reaped(zygote: Zygote) -> None:
    worker = zygote.worker()
    grandchild = worker.run(leave_a_grandchild)
    os.kill(grandchild, 0)
    worker.kill()
    assert zygote.exit_of(worker) == signal.SIGKILL
    await_death(grandchild)
    _await_no_children(zygote)


def _await_no_children(zygote: Zygote) -> None:
    """The zygote's own SIGCHLD has no event that we could see, so this looks, for as long as patience lasts."""
    deadline = time.monotonic() + 10
    path = f"/proc/{zygote.process.pid}/task/{zygote.process.pid}/children"
    while Path(path).read_text():
        assert time.monotonic() < deadline, "a zombie is left"
        time.sleep(0.005)


def test_a_terminals_interrupt_is_not_for_the_zygote(zygote: Zygote) -> None:
    zygote.side.await_item(Kind.READY)
    zygote.process.send_signal(signal.SIGINT)
    zygote.process.send_signal(signal.SIGHUP)
    assert zygote.worker().run(abs, -1) == 1


def test_a_worker_with_zombies_leaves_when_it_is_idle(zygote: Zygote) -> None:
    worker = zygote.worker()
    worker.run(leave_a_zombie)
    assert zygote.exit_of(worker) == 0
    _await_no_children(zygote)


def test_a_worker_has_no_descriptor_but_its_own(zygote: Zygote) -> None:
    zygote.worker(1).run(pid)
    worker = zygote.worker(2)
    zygote.worker(3).run(pid)
    worker.run(pid)
    links = [os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")]
    assert sum(link.startswith("socket:") for link in links) == 1
    assert sum(link.startswith("pipe:") for link in links) == 6
    assert len({link for link in links if link.startswith("pipe:")}) == 2
    assert "/dev/null" in links
    assert len(links) <= 12, links


def test_a_supervisor_without_a_daemon_takes_its_command_along(zygote: Zygote, tmp_path: object) -> None:
    process = zygote.supervisor(1, f"{tmp_path}/log", Command([b"sleep", b"1000"], b"/", dict(os.environb), 0))
    started = process.side.await_item(Kind.COMMAND_STARTED)
    process.side.close()
    zygote.exit_of(process)
    await_death(started.pid)


def test_command_lines_show_whose_they_are(zygote: Zygote, tmp_path: object) -> None:
    worker = zygote.worker()
    worker.run(pid)
    for process in (zygote.process.pid, worker.pid):
        line = Path(f"/proc/{process}/cmdline").read_text()
        assert "abi_worker" in line
        assert str(tmp_path) in line
    assert Path(f"/proc/{worker.pid}/comm").read_text() == "abi_worker\n"
