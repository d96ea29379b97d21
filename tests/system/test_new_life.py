"""A program that goes on under a new daemon: what it refers to from before stays what it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from abi.wire.codec import decode_items, decoders
from abi.wire.schema import Kind, Task
from tests.system.harness import BIN, WAIT_S, Daemon, eventually
from tests.system.raw import Raw
from tests.system.scripts import start_script

NESTED_AND_A_RESTART = """
import os, subprocess, sys, time, abi, abi.returning
abi.returning.RETURN_SECONDS = 100

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


OUT_OF_PATIENCE = """
import os, subprocess, sys, time, abi, abi.returning
abi.returning.RETURN_SECONDS = 100

@abi.remote
def slow(gate):
    while not os.path.exists(gate): time.sleep(0.01)
    return "done"

ref = slow.remote(sys.argv[3])
abi.wait([ref], timeout=0.1)
os.kill(int(sys.argv[1]), 9)
try:
    abi.get(ref, timeout=0.5)
except abi.errors.GetTimeoutError:
    print("patience ended")
subprocess.run([sys.argv[2], "start", "-d", "--cpus", "2"], stdout=subprocess.DEVNULL, check=True)
open(sys.argv[3], "w").close()
print(abi.get(ref, timeout=float("inf")))
"""


def test_a_caller_s_timeout_holds_while_there_is_no_daemon(tmp_path: Path) -> None:
    daemon = Daemon()
    program = tmp_path / "program.py"
    program.write_text(OUT_OF_PATIENCE)
    command = [sys.executable, str(program), str(daemon.pid), str(BIN / "abid"), str(tmp_path / "gate")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=daemon.environment, timeout=WAIT_S)
        assert (done.returncode, done.stdout) == (0, "patience ended\ndone\n"), done.stderr
    finally:
        daemon.run("abid", "stop", "--now")
        daemon.close()


REFUSED = """
import os, abi

def function_of(size):
    data = os.urandom(size)
    def length(): return len(data)
    return abi.remote(length)

assert abi.get([function_of(400_000).remote() for _ in range(2)]) == [400_000, 400_000]
for attempt in range(2):
    try:
        abi.get(function_of(400_000).remote())
    except abi.errors.SessionLost as error:
        print(error.message)
"""


def test_what_the_daemon_refuses_in_the_middle_of_a_session_is_told() -> None:
    daemon = Daemon(config="[queue]\nbytes_max = 1048576\n")
    try:
        done = daemon.python(REFUSED)
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first == second
        assert first.startswith("the daemon ended this session: the functions of this program have 120")
        assert first.endswith("queue.bytes_max allows 1048576: give large data to a function as an argument")
        assert daemon.log().count("give large data") == 2, "it is heard twice, and no more"
    finally:
        daemon.close()


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
import sys, abi, abi.returning
abi.returning.RETURN_SECONDS = 100

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


def run_unread(raw: Raw, daemon: Daemon, count: int) -> None:
    """So many results of 10 KB, of which the program reads nothing."""
    raw.define(lambda: bytes(10_000))
    raw.say(Kind.SUBMIT, *(Task(seq, 0, 0) for seq in range(1, count + 1)))
    eventually(lambda: daemon.ask("status")["tasks"]["finished"] == count, "all have ended")


def ends_before_goodbye(raw: Raw) -> list[int]:
    seen: list[int] = []
    while (frame := raw.frame())[0] != Kind.BYE:
        if frame[0] == Kind.END:
            seen += (end.seq for end in decode_items(decoders([Kind.END]), *frame))
    return sorted(seen)


def test_a_program_that_does_not_read_until_its_daemon_has_gone_has_its_results() -> None:
    """300 KB: more than the kernel keeps unless it is asked to. The least it may be asked for is 208 KiB, twice."""
    daemon = Daemon(before="import abid.programs\nabid.programs.GOODBYE_BYTES = 212992")
    try:
        with Raw(daemon).greet("session") as raw:
            run_unread(raw, daemon, 30)
            daemon.kill(signal.SIGTERM)
            daemon.wait()
            assert ends_before_goodbye(raw) == list(range(1, 31))
    finally:
        daemon.close()


def test_a_daemon_says_all_that_has_ended_before_it_goes() -> None:
    """3 MB, more than is queued at a time: the rest is said while the program reads."""
    daemon = Daemon(before="import abid.daemon\nabid.daemon.GOODBYE_S = 20")
    try:
        with Raw(daemon).greet("session") as raw:
            run_unread(raw, daemon, 300)
            daemon.kill(signal.SIGTERM)
            assert ends_before_goodbye(raw) == list(range(1, 301))
            daemon.wait()
    finally:
        daemon.close()
