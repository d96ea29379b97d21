"""The bench's processes: each measurement in one of its own, ended with all it started, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from abi.errors import UsageError
from abi_cli.bench import peers, procs
from abi_cli.bench.own_daemon import program, without_abi

# A program whose child leaves a sleeping grandchild to whoever collects orphans, and says its number.
ORPHAN = """
import os, subprocess, sys
if os.fork() == 0:
    print(subprocess.Popen(["sleep", "300"]).pid, flush=True)
    os._exit(0)
os.wait()
"""


def run_alone(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since being a subreaper is for the whole process."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_what_outlives_its_parents_is_found_and_ended() -> None:
    code = f"""
import subprocess, sys
from abi_cli.bench import procs
with procs.subreaper():
    pid = int(subprocess.check_output([sys.executable, "-c", {ORPHAN!r}]))
    import os
    assert procs.descendants(os.getpid()) == [pid], procs.descendants(os.getpid())
    assert procs.end_descendants(0.0) == ["sleep 300"]
    assert procs.descendants(os.getpid()) == []
    assert procs.command_line(pid) == ""
print("well")
"""
    # The pipe of check_output ends only with `sleep`: so let it not be held.
    done = run_alone(code.replace('["sleep", "300"]', '["sleep", "300"], stdout=subprocess.DEVNULL'))
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_cpu_and_memory_of_a_process() -> None:
    me = os.getpid()
    before = procs.tree_cpu_ns(me)
    deadline = time.process_time() + 0.2
    while time.process_time() < deadline:
        pass
    used = procs.cpu_between(before, procs.tree_cpu_ns(me))
    assert 0.15e9 < used < 5e9
    assert 1e6 < procs.pss_bytes(me) < 10e9
    assert procs.cpu_ns(2**30) == procs.pss_bytes(2**30) == 0


# What it prints of a reading: the rest of the bench ends every process below it, so it must not be this one.
MEASURE = """
import dataclasses, json, os, sys
from abi_cli.bench import child, lines, peers, procs
name, contender, scale, limit_s = sys.argv[1:]
line = dataclasses.replace(lines.load(name), limit_s=float(limit_s))
with procs.subreaper():
    reading = child.measure(line, peers.Contender(contender, sys.executable), 1, float(scale))
    print(json.dumps([dict(reading.metrics), reading.problem, reading.left, procs.descendants(os.getpid())]))
"""


def measure(name: str, contender: str, scale: float, limit_s: float = 500.0) -> tuple[dict[str, float], str]:
    """(metrics, problem) of one measurement, which leaves nothing behind."""
    done = run_alone(MEASURE, name, contender, str(scale), str(limit_s))
    metrics, problem, left, running = json.loads(done.stdout)
    assert (left, running) == ([], [])
    return metrics, problem


def test_a_measurement_in_a_process_of_its_own() -> None:
    metrics, problem = measure("noops", "ppe", 0.01)
    assert problem == ""
    assert metrics["tasks_per_s"] > 0


def test_a_measurement_that_does_not_end_is_given_up() -> None:
    metrics, problem = measure("noops", "ppe", 1000.0, limit_s=1.5)
    assert metrics == {}
    assert problem.startswith("not done after 2 s")


def test_a_runtime_that_loses_work_is_a_result() -> None:
    """A pool of the standard library is broken by the death of a worker, long before all would be done."""
    metrics, problem = measure("kill_worker", "ppe", 1.0)
    assert problem == ""
    assert metrics["lost"] > 0


def test_a_measurement_that_fails_says_why() -> None:
    _, problem = measure("noops", "nobody", 1.0)
    assert problem.startswith("KeyError: 'nobody'")


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """The bench is interrupted in the middle of a measurement: exit code 130, and nothing of it runs on."""
    mark = f"peer-{os.getpid()}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "abi_cli.main", "bench", "--only", "two_cores", "--against", "pool"]
    bench = subprocess.Popen(command, env={**os.environ, "BENCH_MARK": mark, "TMPDIR": str(tmp_path)},
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        wait_for(lambda: len(procs.descendants(bench.pid)) >= 2)
        bench.send_signal(signal.SIGINT)
        bench.communicate(timeout=30)
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == 130
    assert marked(mark) == []
    assert list(tmp_path.iterdir()) == []


def marked(mark: str) -> list[str]:
    """Command lines of all processes whose environment holds the mark."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                holds = mark.encode() in file.read()
        except OSError:
            continue
        if holds:
            found.append(procs.command_line(int(name)))
    return found


def wait_for(holds: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_a_namespace_with_nothing_but_loopback() -> None:
    code = """
import os, socket
from abi_cli.bench import loopback
before = os.getuid()
try:
    loopback.enter()
except PermissionError as problem:
    print("refused", problem)
else:
    assert loopback.alone() and os.getuid() == before
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except OSError as problem:
        print("alone", problem.strerror)
"""
    said = run_alone(code).stdout
    if said.startswith("refused"):
        assert "unshare -rn" in said
        pytest.skip("this kernel gives us no network namespace")
    assert said == "alone Network is unreachable\n"


def test_peers_that_are_not_there_are_named_with_what_to_do(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')  # without site-packages
    bare.chmod(0o755)
    (ray,) = peers.find(["ray", "ray"], str(bare))
    assert ray.missing.startswith(f"not installed in {bare}: pip install ray")
    assert "--peer-python" in ray.missing


def test_names_of_peers() -> None:
    assert peers.parse("ppe, pool") == ["ppe", "pool"]
    assert peers.parse("none") == peers.parse("") == []
    with pytest.raises(UsageError, match="'pol'"):
        peers.find(["pol"], None)
    with pytest.raises(UsageError, match="no such program"):
        peers.find([], "/nowhere/python")


def test_the_daemon_of_a_killed_bench_or_demo_ends(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from abi_cli.bench.own_daemon import OwnDaemon
daemon = OwnDaemon(sys.argv[1])
daemon.start()
print(daemon.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with procs.subreaper():
        done = run_alone(code, str(tmp_path))
        assert done.returncode == -signal.SIGKILL
        pid = int(done.stdout)
        deadline = time.monotonic() + 20
        while procs.command_line(pid):
            assert time.monotonic() < deadline, "it goes on without its owner"
            time.sleep(0.01)


def test_our_commands_are_found_and_the_environment_is_cleared() -> None:
    assert os.access(program("abid"), os.X_OK)
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        program("no-such-command")
    assert without_abi({"ABI_SOCKET": "x", "HOME": "y"}) == {"HOME": "y"}


def test_stolen_time_is_a_part_of_all_time() -> None:
    stolen, passed = procs._stolen_ticks()
    assert 0 <= stolen < passed
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert passed * procs.TICK_NS / 1e9 >= 0.5 * uptime, "of every processor"
