"""A program that goes on under a new daemon: what it refers to from before stays what it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.system.harness import BIN, WAIT_S, Daemon
from tests.system.scripts import start_script

NESTED_AND_A_RESTART = """
import os, subprocess, sys, time, abi

@abi.remote
def same(x): return x

@abi.remote
def parent(x): return [same.remote(x)]

@abi.remote
def slow(x):
    time.sleep(1)
    return x

(old,) = abi.get(parent.remote("old"))
assert abi.get(old) == "old"
needs_old = slow.remote(old)
os.kill(int(sys.argv[1]), 9)
subprocess.run([sys.argv[2], "start", "-d", "--cpus", "2"], stdout=subprocess.DEVNULL, check=True)
(new,) = abi.get(parent.remote("new"))
print(abi.get(new), abi.get(old), abi.get(needs_old))
"""


def test_after_a_restart_a_task_of_a_task_is_not_taken_for_one_of_before(tmp_path: Path) -> None:
    """A new daemon counts a session's workers anew, and their tasks bear their numbers."""
    daemon = Daemon()
    program = tmp_path / "program.py"
    program.write_text(NESTED_AND_A_RESTART)
    command = [sys.executable, str(program), str(daemon.pid), str(BIN / "abid")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=daemon.environment, timeout=WAIT_S)
        assert (done.returncode, done.stdout) == (0, "new old old\n"), done.stderr
    finally:
        daemon.run("abid", "stop", "--now")
        daemon.close()


MANY_LARGE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
import sys, abi

@abi.remote
def gate(path):
    return open(path).read()

@abi.remote
def check(data, number, _gate):
    return data == bytes([number % 256]) * 110_000

closed = gate.remote(sys.argv[1])
def submit(numbers):
    return [check.remote(bytes([n % 256]) * 110_000, n, closed) for n in numbers]

refs = submit(range(200))
print("submitted", flush=True)
input()
refs += submit(range(200, 400))
old = [abi.put(bytes([n % 256]) * 110_000) for n in range(200)]
refs += [check.remote(ref, n, closed) for n, ref in enumerate(old)]
print("more", flush=True)
assert all(abi.get(refs))
print("all there")
"""


def test_many_large_arguments_go_on_with_few_descriptors() -> None:
    daemon = Daemon()
    try:
        path = daemon.fifo("gate")
        program = start_script(daemon, MANY_LARGE, path, stdin=subprocess.PIPE)
        program.await_out(b"submitted")
        daemon.kill()
        daemon.wait()
        assert program.process.stdin is not None
        program.process.stdin.write(b"\n")
        program.process.stdin.close()
        program.await_out(b"more")
        daemon.start()
        with open(path, "w") as gate:
            gate.write("open")
        assert program.wait() == 0, program.err
        assert b"all there" in program.out
    finally:
        daemon.close()
