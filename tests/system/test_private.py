"""A daemon for one program: started when none runs, found by nobody else, gone with the program however that ends."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from abi import paths
from tests.system.harness import (
    Daemon,
    Place,
    alive,
    all_pids,
    await_gone,
    clean_environment,
    command_line,
    eventually,
)
from tests.system.scripts import output_of, run_script, start_script, write_script

pytestmark = pytest.mark.skipif(
    any(map(os.path.exists, paths.candidates(clean_environment()))), reason="a daemon of the user's runs here"
)

HEAD = f"""
import sys; sys.path.insert(1, {str(Path(__file__).parents[2])!r})
import os, signal, threading, time
import abi
from tests.system.work import echo, fail, sleep
"""


class Nowhere(Place):
    """A place whose environment leads to no daemon. Private ones put their directories into ``folder / "tmp"``."""

    def __init__(self) -> None:
        super().__init__()
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir()
        self.environment = clean_environment(HOME=str(self.home), TMPDIR=str(self.tmp))

    def directories(self) -> list[Path]:
        return sorted(self.tmp.glob("abi-private-*"))

    def processes(self) -> list[int]:
        needle = os.fsencode(self.tmp / "abi-private-")
        return [pid for pid in all_pids() if alive(pid) and needle in _environment_or_command(pid)]

    def await_nothing(self) -> None:
        eventually(lambda: not self.directories(), f"its directory is removed: {self.directories()}")
        await_gone(self.processes())


def _environment_or_command(pid: int) -> bytes:
    try:
        return command_line(pid) + Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def nowhere() -> Iterator[Nowhere]:
    made = Nowhere()
    yield made
    made.close()


def test_it_starts_by_itself_and_goes_with_its_program(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
print(abi.get(echo.remote("first")))
print("waiting", flush=True)
sys.stdin.readline()
"""
    )
    started = start_script(nowhere, script, stdin=subprocess.PIPE)
    try:
        started.await_out(b"waiting")
        [directory] = nowhere.directories()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert (directory / "abid.sock").is_socket()
        assert len(nowhere.processes()) >= 3, "daemon, zygote, worker"
        started.process.stdin.write(b"\n")  # type: ignore[union-attr]
        started.process.stdin.flush()  # type: ignore[union-attr]
        assert started.wait() == 0, started.err
    finally:
        started.close()
    assert not nowhere.directories(), "gone before the program is"
    await_gone(nowhere.processes())
    assert started.err == b""


FIRST = [
    "abi.get(abi.put(1))",
    "abi.init('private')",
    "list(abi.map(echo, range(3)))",
    "echo.remote(1)",
    "abi.shutdown(); assert not abi.is_initialized(); echo.options(num_cpus=2); abi.get([])",
    "import asyncio\nasync def main(): assert await echo.remote(3) == 3\nasyncio.run(main())",
]


@pytest.mark.parametrize("first", FIRST)
def test_anything_may_come_first(nowhere: Nowhere, first: str) -> None:
    assert output_of(nowhere, f"{HEAD}{first}\nprint('fine')\n") == "fine\n"
    nowhere.await_nothing()


WAYS_TO_END = {
    "kill -9": "os.kill(os.getpid(), signal.SIGKILL)",
    "os._exit": "os._exit(0)",
    "exec": "os.execv('/bin/true', ['true'])",
}


def test_it_goes_however_the_program_ends(nowhere: Nowhere) -> None:
    begin = HEAD + "refs = [sleep.remote(60) for _ in range(100)]\nabi.get(echo.options(num_cpus=0).remote(1))\n"
    programs = [
        start_script(nowhere, write_script(nowhere.folder, f"{begin}{end}\n", f"end-{n}.py"))
        for n, end in enumerate(WAYS_TO_END.values())
    ]
    for program in programs:
        program.wait()
        program.close()
    nowhere.await_nothing()


def test_it_goes_when_the_program_is_killed_at_any_moment_of_its_start(nowhere: Nowhere) -> None:
    script = HEAD + "abi.get(echo.remote(1))\ntime.sleep(60)\n"
    for delay_ms in (60, 130, 220):
        started = start_script(nowhere, script)
        time.sleep(delay_ms / 1000)  # not for luck: the moments are the test
        started.process.kill()
        started.close()

    def is_gone() -> bool:
        # Nobody is left to remove the directory of one killed between making it and starting its daemon.
        used = [folder for folder in nowhere.directories() if (folder / "abid.sock").exists()]
        return not used and not nowhere.processes()

    eventually(is_gone, "nothing runs, and no place of theirs is left")


def test_a_program_that_ctrl_c_ends_dies_of_it(nowhere: Nowhere) -> None:
    """As without us: a shell's loop ends with it."""
    text = HEAD + "abi.get(echo.remote(1))\nsignal.raise_signal(signal.SIGINT)\n"
    program = start_script(nowhere, write_script(nowhere.folder, text, "interrupted.py"))
    try:
        assert program.wait() == -signal.SIGINT
    finally:
        program.close()
    nowhere.await_nothing()


def test_a_second_ctrl_c_ends_it_sooner_and_without_a_trace(nowhere: Nowhere) -> None:
    """The second comes while the first one's exit waits for the private daemon to end."""
    text = (
        HEAD
        + """
import abi.private
class Interrupted:
    monotonic = staticmethod(time.monotonic)
    @staticmethod
    def sleep(_seconds):
        print("interrupted", flush=True)
        signal.raise_signal(signal.SIGINT)
abi.get(echo.remote(1))
abi.private.time = Interrupted
os.kill(abi.program._daemon.pid, signal.SIGSTOP)  # so that it is waited for
signal.raise_signal(signal.SIGINT)
"""
    )
    program = start_script(nowhere, write_script(nowhere.folder, text, "interrupted_twice.py"))
    try:
        assert program.wait() == -signal.SIGINT
        assert program.out.count(b"interrupted") == 1
        assert b"atexit" not in program.err
        assert program.err.count(b"Traceback") == 1, program.err
    finally:
        program.close()
    nowhere.await_nothing()


def test_ctrl_c_during_the_start_and_then_on(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
try:
    print("on", flush=True)
    abi.get(echo.remote(1))
    time.sleep(60)
except KeyboardInterrupt:
    print(abi.get([echo.remote(n) for n in range(3)]))
"""
    )
    for delay_ms in (50, 150):
        started = start_script(nowhere, script)
        started.await_out(b"on")
        time.sleep(delay_ms / 1000)
        started.signal(signal.SIGINT)
        assert (started.wait(), started.err) == (0, b"")
        assert started.out == b"on\n[0, 1, 2]\n"
        started.close()
    nowhere.await_nothing()


def test_two_programs_have_two(nowhere: Nowhere) -> None:
    script = HEAD + "print(abi.get(echo.remote(1)), flush=True)\nsys.stdin.readline()\nprint(abi.get(echo.remote(2)))\n"
    programs = [start_script(nowhere, script, stdin=subprocess.PIPE) for _ in range(2)]
    try:
        for program in programs:
            program.await_out(b"1\n")
        assert len(nowhere.directories()) == 2
        programs[0].process.kill()
        programs[0].wait()
        programs[1].process.communicate(b"\n", timeout=20)
        assert programs[1].process.returncode == 0, "it does not miss the other one"
    finally:
        for program in programs:
            program.close()
    nowhere.await_nothing()


def test_it_is_found_by_its_workers_and_by_nobody_else(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
import subprocess

@abi.remote(num_cpus=0)
def from_a_task():
    inner = ("import abi, os; from tests.system.work import echo; "
        "print(abi.get(echo.remote('inner')), os.environ['ABI_SOCKET'])")
    return subprocess.run([sys.executable, "-c", inner], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": ":".join(sys.path)}).stdout

print(abi.get(from_a_task.remote()), end="")
print(sorted(name for name in os.environ if name.startswith("ABI_")))
print(abi.get(echo.remote(os.listdir(os.environ["TMPDIR"]))))
"""
    )
    lines = output_of(nowhere, script).splitlines()
    assert re.fullmatch(rf"inner {nowhere.tmp}/abi-private-\w+/abid.sock", lines[0])
    assert lines[1] == "[]"
    assert lines[2].count("abi-private-") == 1, "the child of the task used the program's, and started none"


def test_shutdown_and_init_again(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
before = [echo.remote(1), abi.put(2)]
assert abi.get(before) == [1, 2]
waiting = sleep.remote(60)
import pickle
unended = pickle.loads(pickle.dumps(waiting).replace(bytes.fromhex(waiting.home.prefix.hex()), b"elsewher"))
folders = [set(os.listdir(os.environ["TMPDIR"]))]
abi.shutdown()
abi.shutdown()
assert not abi.is_initialized()
print(os.listdir(os.environ["TMPDIR"]), "after shutdown")
try:
    abi.get(waiting)
except abi.errors.SessionLost as error:
    print("lost")
assert abi.wait([waiting], timeout=1) == ([waiting], [])
assert abi.get(before) == [1, 2], "what was here is here"
assert not abi.is_initialized(), "no daemon is needed for that"
abi.init()
running = sleep.options(num_cpus=0).remote(60)
mixed = [running, unended]
for use in (lambda: echo.remote(before[1]), lambda: abi.get(mixed), lambda: abi.wait(mixed, num_returns=2)):
    try:
        use()
    except abi.errors.SessionLost as error:
        print("lost")
assert abi.get(echo.remote(3)) == 3, "the same function, in a new session"
folders.append(set(os.listdir(os.environ["TMPDIR"])))
assert not folders[0] & folders[1]
try:
    abi.init()
except RuntimeError as error:
    print(error)
abi.init(ignore_reinit_error=True)
for n in range(1):
    abi.shutdown()
    assert abi.get(echo.remote(n)) == n, "and by itself"
print("fine")
"""
    )
    lines = output_of(nowhere, script).splitlines()
    assert lines[0] == "[] after shutdown"
    assert lines[1:5] == ["lost"] * 4
    assert "connected already" in lines[5]
    assert "ignore_reinit_error" in lines[5]
    assert lines[-1] == "fine"
    nowhere.await_nothing()


def test_its_processors_and_resources_are_the_programs_choice(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
abi.init(num_cpus=3, resources={"licence": 2})
print(abi.get(echo.options(num_cpus=3, resources={"licence": 2}).remote("all of it")))
for options in ({"num_cpus": 4}, {"resources": {"licence": 3}}):
    try:
        abi.get(echo.options(**options).remote(1))
    except abi.errors.Refused as error:
        print("refused")
abi.shutdown()
abi.init("private", num_cpus=0.5)
print(abi.get(echo.options(num_cpus=0.5).remote("half")))
"""
    )
    assert output_of(nowhere, script).splitlines() == ["all of it", "refused", "refused", "half"]


def test_addresses(nowhere: Nowhere, daemon: Daemon) -> None:
    script = (
        HEAD
        + """
daemon, socket = sys.argv[1:]

def attempt(*arguments, **keywords):
    try:
        abi.init(*arguments, **keywords)
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0])
    else:
        print("connected", abi.get(echo.remote(1)))
        abi.shutdown()

for address in (daemon, socket, "unix:" + socket, "unix://" + socket, os.path.relpath(socket)):
    attempt(address)
attempt("/no/such/place")
attempt(sys.argv[0])
attempt("auto")
attempt(daemon, num_cpus=1)
os.environ["ABI_SOCKET"] = socket
attempt()
attempt("private")
os.environ["ABI_SOCKET"] = "/no/such/socket"
attempt()
os.environ["ABI_RUNTIME_DIR"] = daemon
del os.environ["ABI_SOCKET"]
attempt()
attempt("auto")
"""
    )
    lines = output_of(nowhere, script, str(daemon.runtime_dir), str(daemon.runtime_dir / "abid.sock")).splitlines()
    assert lines[:5] == ["connected 1"] * 5
    assert lines[5].startswith("DaemonUnreachable")
    assert "/no/such/place" in lines[5]
    assert lines[6].startswith("DaemonUnreachable")
    assert lines[7].startswith("DaemonUnreachable")
    assert lines[8].startswith("ValueError")
    assert "private" in lines[8]
    assert lines[9:11] == ["connected 1"] * 2
    assert lines[11].startswith("DaemonUnreachable")
    assert "/no/such/socket" in lines[11]
    assert lines[12:] == ["connected 1"] * 2
    nowhere.await_nothing()


def test_a_private_daemon_that_dies_is_said_so_and_another_may_follow(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
assert abi.get(echo.remote(1)) == 1
refs = [sleep.remote(60) for _ in range(10)]
print("ready", flush=True)
try:
    abi.get(refs)
except abi.errors.SessionLost as error:
    print("lost:", str(error).replace("\\n", "|"), flush=True)
try:
    echo.remote(1)
except abi.errors.SessionLost as error:
    print("again:", str(error).replace("\\n", "|"), flush=True)
abi.init()
print(abi.get(echo.remote("again")))
"""
    )
    started = start_script(nowhere, script)
    try:
        started.await_out(b"ready")
        [daemon] = [pid for pid in nowhere.processes() if b"abid\0start" in command_line(pid)]
        os.kill(daemon, signal.SIGKILL)
        assert started.wait() == 0, started.err
    finally:
        started.close()
    lines = started.out.decode().splitlines()
    said = (
        f"the private daemon (pid {daemon}) was killed by SIGKILL"
        "|  hint: abi.init() begins a new session; unfinished work has to be submitted again"
    )
    assert lines[1:] == [f"lost: {said}", f"again: {said}", "again"]
    nowhere.await_nothing()


def test_an_idle_program_goes_on_with_another_and_one_that_lost_work_after_shutdown(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
import abi.helper
from abi import program, session
from abi.helper import PARKED

abi.helper.IDLE_TICKS = 1

def kill():
    helper = session.active().helper
    deadline = time.monotonic() + 10
    while not session.active().pending and helper.state != PARKED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(program._daemon.pid, signal.SIGKILL)
    while abi.is_initialized():
        assert time.monotonic() < deadline
        time.sleep(0.01)

abi.init(num_cpus=3)
ended = echo.remote(1)
assert abi.get(ended) == 1
kill()
print(abi.get(echo.options(num_cpus=3).remote("nothing was lost")), abi.get(ended))
lost = sleep.remote(60)
kill()
for _ in range(2):
    try:
        echo.remote(1)
    except abi.errors.SessionLost:
        print("lost")
abi.shutdown()
print(abi.get(echo.remote("all is forgotten")))

def end(*_):
    if session.active().pending:
        abi.shutdown()
    else:
        signal.setitimer(signal.ITIMER_REAL, 0.05)

signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    abi.get(sleep.remote(60))
except abi.errors.SessionLost as error:
    print(str(error).replace("\\n", "|"))
"""
    )
    lines = output_of(nowhere, script).splitlines()
    assert lines == [
        "nothing was lost 1",
        "lost",
        "lost",
        "all is forgotten",
        "abi.shutdown() was called|  hint: abi.init() begins a new session; unfinished work has to be submitted again",
    ]
    nowhere.await_nothing()


def test_one_that_cannot_start_says_why(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
for _ in range(2):
    try:
        abi.get(echo.remote(1))
    except abi.errors.AbiError as error:
        print(type(error).__name__, error)
"""
    )
    said = output_of(nowhere, script, env={"ABI_WORKERS_CPUS": "many"})
    assert said.count("ConfigError") == 2
    assert "ABI_WORKERS_CPUS" in said
    assert not nowhere.directories()


def test_a_forked_child_leaves_its_parents_daemon_alone(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
assert abi.get(echo.remote(1)) == 1
for end in (lambda: os._exit(0), lambda: sys.exit(0), abi.shutdown):
    pid = os.fork()
    if pid == 0:
        end()
        os._exit(0)
    os.waitpid(pid, 0)
    assert abi.get(echo.remote(2)) == 2
pid = os.fork()
if pid == 0:
    assert abi.get(echo.remote(3)) == 3
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert abi.get(echo.remote(4)) == 4
print("fine")
"""
    )
    assert output_of(nowhere, script, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"}) == "fine\n"
    nowhere.await_nothing()


def test_what_tasks_print_is_all_there_before_a_program_ends(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
@abi.remote
def talk(n):
    print(f"line {n}")
    print(f"error {n}", file=sys.stderr)

abi.get([talk.remote(n) for n in range(50)])
"""
    )
    done = run_script(nowhere, script)
    assert sorted(re.findall(r"line (\d+)$", done.stdout, re.MULTILINE), key=int) == [str(n) for n in range(50)]
    assert sorted(re.findall(r"error (\d+)$", done.stderr, re.MULTILINE), key=int) == [str(n) for n in range(50)]


def test_importing_costs_little_and_starts_nothing(nowhere: Nowhere) -> None:
    script = (
        HEAD
        + """
import threading
assert threading.active_count() == 1
assert "asyncio" not in sys.modules and "cloudpickle" not in sys.modules
print(os.listdir(os.environ["TMPDIR"]))
"""
    )
    assert output_of(nowhere, script) == "[]\n"


def test_it_works_from_an_interpreter_without_its_packages_on_the_path(nowhere: Nowhere) -> None:
    """As after `pip install --target`: only the program's own sys.path knows where abi is."""
    import abi

    root = str(Path(abi.__file__).parents[1])
    text = f"import sys; sys.path.insert(0, {root!r}); import abi; print(abi.get(abi.remote(abs).remote(-4)))"
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        env=nowhere.environment,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert (done.stdout, done.stderr) == ("4\n", "")
