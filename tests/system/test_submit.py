"""`abi submit` and its siblings, as a person at a shell meets them."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import BIN, Daemon, Program, alive, await_gone, eventually, parent_of, rss_bytes


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One for the whole module: each test leaves it idle."""
    made = Daemon(config="[workers]\ninterrupt_grace_ms = 20_000\nresources = { license = 2 }\n")
    yield made
    made.close()


@pytest.fixture
def impatient() -> Iterator[Daemon]:
    """One that soon kills who does not listen."""
    made = Daemon(config="[workers]\ninterrupt_grace_ms = 300\n")
    yield made
    made.close()


def release(fifo: str) -> None:
    """Let whoever waits to read from this fifo go on."""

    def opened() -> int | None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    fd = eventually(opened, f"somebody reads {fifo}")
    os.write(fd, b"go\n")
    os.close(fd)


def detached(daemon: Daemon, *words: str) -> str:
    """The id of a job that was left alone."""
    done = daemon.run("abi", "submit", "-d", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"[0-9a-z]{8}\n", done.stdout)
    return done.stdout.strip()


def show(daemon: Daemon, identity: str) -> Any:
    return daemon.ask("show", target=identity)


def await_state(daemon: Daemon, identity: str, state: str) -> Any:
    def reached() -> Any:
        job = show(daemon, identity)
        return job if job["state"] == state else None

    return eventually(reached, f"job {identity} is {state}")


# What comes out.


def test_output_and_code_are_the_commands(daemon: Daemon) -> None:
    done = daemon.run("abi", "submit", "--", "sh", "-c", "echo hi; echo ho >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hi\n", "ho\n")


def test_output_comes_while_the_command_runs(daemon: Daemon) -> None:
    fifo = daemon.fifo("go-1")
    program = daemon.open("abi", "submit", "--", "sh", "-c", f"echo one; echo two >&2; read x < {fifo}; echo three")
    program.await_out(b"one\n")
    program.await_err(b"two\n")
    assert program.out == b"one\n"
    release(fifo)
    assert program.wait() == 0
    assert (program.out, program.err) == (b"one\nthree\n", b"two\n")


def test_bytes_are_not_touched(daemon: Daemon) -> None:
    code = "import os; os.write(1, bytes(range(256)) * 3); os.write(2, bytes(reversed(range(256))))"
    program = daemon.open("abi", "submit", "--", sys.executable, "-c", code)
    assert program.wait() == 0
    assert program.out == bytes(range(256)) * 3
    assert program.err == bytes(reversed(range(256)))


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_fifty_megabytes_come_whole_and_the_daemon_stays_small(daemon: Daemon, unbuffered: str) -> None:
    code = "import sys\nfor n in range(50):\n    sys.stdout.buffer.write(n.to_bytes(4, 'big') * (1 << 18))"
    before = rss_bytes(daemon.pid)
    environment = daemon.environment | {"PYTHONUNBUFFERED": unbuffered}
    program = daemon.open("abi", "submit", "--", sys.executable, "-c", code, env=environment)
    asked = 0
    while program._read_one():  # other people are served meanwhile
        while len(program._out) >= asked:
            asked += 10 << 20
            assert daemon.run("abi", "status").returncode == 0
    assert program.wait() == 0
    expected = b"".join(n.to_bytes(4, "big") * (1 << 18) for n in range(50))
    assert hashlib.sha256(program.out).digest() == hashlib.sha256(expected).digest()
    assert rss_bytes(daemon.pid) - before < 16 << 20


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_pipe_that_somebody_made_non_blocking(daemon: Daemon, unbuffered: str, as_json: bool) -> None:
    """Some programs leave a shared terminal or pipe so; a full one is then an error, and no reason to lose anything."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    program = daemon.open(
        *("abi", "submit", *(["--json"] if as_json else []), "--", "head", "-c", "3000000", "/dev/zero"),
        stdout=write_end,
        env=daemon.environment | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write_end)
    eventually(lambda: daemon.ask("jobs", all=False)["jobs"] == [], "the job is over, its reader has not begun")
    with open(read_end, "rb") as pipe:
        seen = pipe.read()
    assert program.wait() == 0, program.err
    if as_json:
        lines = [json.loads(line) for line in seen.splitlines()]
        seen = b"".join(base64.b64decode(line["data"]) for line in lines if "data" in line)
    assert seen == bytes(3_000_000)


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_a_signal_is_128_and_its_number(daemon: Daemon, name: str, code: int) -> None:
    assert daemon.run("abi", "submit", "--", "sh", "-c", f"kill -{name} $$").returncode == code


def test_nothing_is_on_its_stdin(daemon: Daemon) -> None:
    assert daemon.run("abi", "submit", "--", "cat").returncode == 0


def test_words_that_are_no_text_arrive_as_they_are(daemon: Daemon) -> None:
    environment = {os.fsencode(k): os.fsencode(v) for k, v in daemon.environment.items()} | {b"CAFE": b"\xe9\xff"}
    script = """printf '%s|%s' "$1" "$CAFE" """
    program = daemon.open("abi", "submit", "--", "sh", "-c", script, "sh", b"na\xefve", env=environment)
    assert program.wait() == 0, program.err
    assert program.out == b"na\xefve|\xe9\xff"
    jobs = daemon.run("abi", "jobs", "--all", "--json")
    assert jobs.returncode == 0, jobs.stderr
    assert "na\\udcefve" in jobs.stdout


# What is asked for.


def test_options_reach_the_command(daemon: Daemon, tmp_path: Path) -> None:
    done = daemon.run(
        *("abi", "submit", "--cwd", str(tmp_path), "--env", "COLOUR=red", "--env", "MY_TOKEN=hush"),
        *("--env", "FROM=https://me:hush@host/x"),
        *("--name", "painter", "--cpus", "0.5", "--", "sh", "-c", 'pwd; echo "$COLOUR $MY_TOKEN"'),
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}\nred hush\n")
    job = show(daemon, "last")
    assert (job["name"], job["cpus"], job["cwd"]) == ("painter", 0.5, str(tmp_path))
    assert (job["env"]["COLOUR"], job["env"]["MY_TOKEN"]) == ("red", "***")
    assert job["env"]["FROM"] == "https://me:***@host/x"


def test_each_job_keeps_its_own_options(daemon: Daemon) -> None:
    """Equal options are one in the core; what comes after them must not be mistaken for them."""
    for _ in range(2):
        assert daemon.run("abi", "submit", "--", "true").returncode == 0
    assert daemon.run("abi", "submit", "--time-limit", "200ms", "--", "sleep", "60").returncode == 4
    assert daemon.run("abi", "submit", "--cpus", "0.25", "--", "true").returncode == 0
    assert daemon.run("abi", "submit", "--time-limit", "200ms", "--", "sleep", "60").returncode == 4


LIMITS = ("300ms", "3s", "15s")
"""The first that is long enough for a shell to set its trap will do."""


def test_a_time_limit_is_a_polite_word_first(daemon: Daemon) -> None:
    script = "trap 'echo asked to go; exit 0' TERM; while :; do sleep 0.01; done"
    for limit in LIMITS:
        done = daemon.run("abi", "submit", "--time-limit", limit, "--", "sh", "-c", script)
        assert done.returncode == 4
        assert "ran longer" in done.stderr
        if done.stdout:
            break
    assert done.stdout == "asked to go\n"


def test_a_time_limit_is_kept_against_who_does_not_listen(impatient: Daemon) -> None:
    script = "trap '' TERM; echo $$; while :; do sleep 0.01; done"
    for limit in LIMITS:
        done = impatient.run("abi", "submit", "--time-limit", limit, "--", "sh", "-c", script)
        assert done.returncode == 4
        if done.stdout:
            break
    await_gone([int(done.stdout)])


def test_a_command_that_is_not_there(daemon: Daemon) -> None:
    done = daemon.run("abi", "submit", "--", "no-such-command-here")
    assert (done.returncode, done.stdout) == (127, "")
    assert "'no-such-command-here' is not found in PATH" in done.stderr


def test_a_command_that_cannot_be_run(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no program")
    done = daemon.run("abi", "submit", "--", str(tmp_path / "notes"))
    assert (done.returncode, done.stdout) == (126, "")
    assert "is not executable" in done.stderr
    done = daemon.run("abi", "submit", "--json", "--", str(tmp_path / "notes"))
    assert done.returncode == 126
    assert "is not executable" in json.loads(done.stdout.splitlines()[-1])["job"]["error"]


def test_a_directory_that_went_away(daemon: Daemon, tmp_path: Path) -> None:
    fifo = daemon.fifo("go-2")
    blocker = detached(daemon, "--cpus", "2", "--", "sh", "-c", f"read x < {fifo}")
    folder = tmp_path / "gone"
    folder.mkdir()
    eventually(lambda: show(daemon, blocker)["state"] == "running", "the first runs")
    program = daemon.open("abi", "submit", "--cwd", str(folder), "--", "true")
    eventually(lambda: daemon.ask("status")["jobs"]["queued"] == 1, "the second is queued")
    folder.rmdir()
    release(fifo)
    assert program.wait() == 126
    assert f"its directory {str(folder)!r}" in program.err.decode()
    assert daemon.run("abi", "wait", blocker).returncode == 0


# The siblings.


def test_the_id_is_all_that_a_detached_submit_says(daemon: Daemon) -> None:
    identity = detached(daemon, "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert daemon.run("abi", "wait", identity).returncode == 3
    logs = daemon.run("abi", "logs", identity)
    assert (logs.returncode, logs.stdout, logs.stderr) == (0, "out\n", "err\n")
    assert daemon.run("abi", "logs", "--stream", "stderr", identity).stdout == ""
    job = show(daemon, identity)
    assert (job["state"], job["end"], job["code"], job["short"]) == ("done", "error", 3, identity)


def test_json_of_a_detached_submit_is_one_object(daemon: Daemon) -> None:
    done = daemon.run("abi", "submit", "-d", "--json", "--", "true")
    said = json.loads(done.stdout)
    assert said["id"].startswith(said["short"])
    assert daemon.run("abi", "wait", said["id"]).returncode == 0


def test_the_environment_is_told_to_who_asks_for_it_alone(daemon: Daemon) -> None:
    done = daemon.run("abi", "submit", "--json", "--env", "SAID=yes", "--", "true")
    ended = json.loads(done.stdout.splitlines()[-1])["job"]
    job = ended["id"]
    assert show(daemon, job)["env"]["SAID"] == "yes"
    others = [
        ended,
        *(json.loads(daemon.run("abi", name, "--json", job).stdout)["job"] for name in ("wait", "cancel", "logs")),
    ]
    assert [each["id"] for each in others] == [job] * 4
    assert not any("env" in each for each in others)


def test_jobs_lists_what_waits_and_runs(daemon: Daemon) -> None:
    fifo = daemon.fifo("go-3")
    first = detached(daemon, "--cpus", "2", "--name", "blocker", "--", "sh", "-c", f"read x < {fifo}")
    second = detached(daemon, "--name", "behind", "--", "true")
    await_state(daemon, first, "running")
    listed = {job["short"]: job for job in daemon.json("abi", "jobs")["jobs"]}
    assert (listed[first]["state"], listed[second]["state"]) == ("running", "queued")
    assert alive(listed[first]["pid"])
    assert "waits for 1 CPU;" in show(daemon, second)["why"]
    table = daemon.run("abi", "jobs").stdout
    assert re.search(rf"^{first} +blocker +running ", table, re.MULTILINE)
    release(fifo)
    assert daemon.run("abi", "wait", first, second).returncode == 0
    assert daemon.json("abi", "jobs")["jobs"] == []
    done = {job["short"] for job in daemon.json("abi", "jobs", "--all")["jobs"]}
    assert {first, second} <= done


def test_logs_can_be_followed_before_the_job_begins(daemon: Daemon) -> None:
    fifo = daemon.fifo("go-4")
    blocker = detached(daemon, "--cpus", "2", "--", "sh", "-c", f"read x < {fifo}")
    queued = detached(daemon, "--", "sh", "-c", "echo at last")
    follower = daemon.open("abi", "logs", "-f", "--json", queued)
    plain = daemon.run("abi", "logs", queued)
    assert (plain.returncode, plain.stdout) == (0, "")
    release(fifo)
    follower.await_out(b'"data"')
    assert follower.wait() == 0
    assert json.loads(follower.out.splitlines()[-1])["job"]["end"] == "ok"
    assert daemon.run("abi", "wait", blocker).returncode == 0


def test_wait_tells_the_first_code_that_is_not_zero(daemon: Daemon) -> None:
    jobs = [detached(daemon, "--", "sh", "-c", f"exit {code}") for code in (0, 5, 6)]
    assert daemon.run("abi", "wait", *jobs).returncode == 5
    assert daemon.run("abi", "wait", jobs[0]).returncode == 0
    assert daemon.run("abi", "wait", "zzzzzzzz").returncode == 3
    answer = daemon.run("abi", "wait", "--json", jobs[2])
    assert answer.returncode == 6
    assert jobs[2] in answer.stdout


def test_wait_gives_up_in_time(daemon: Daemon) -> None:
    fifo = daemon.fifo("go-5")
    job = detached(daemon, "--", "sh", "-c", f"read x < {fifo}")
    done = daemon.run("abi", "wait", "--timeout", "100ms", job)
    assert done.returncode == 4
    assert "1 of 1 jobs have not ended" in done.stderr
    release(fifo)
    assert daemon.run("abi", "wait", job).returncode == 0


def test_cancel_ends_what_runs_and_what_waits(daemon: Daemon) -> None:
    running = detached(daemon, "--cpus", "2", "--", "sleep", "60")
    pid = await_state(daemon, running, "running")["pid"]
    waiting = detached(daemon, "--", "true")
    assert daemon.json("abi", "cancel", waiting)["job"]["end"] == "cancelled"
    assert daemon.run("abi", "cancel", running).returncode == 0
    assert daemon.run("abi", "wait", running).returncode == 130
    assert daemon.run("abi", "wait", waiting).returncode == 130
    await_gone([pid])
    assert show(daemon, waiting)["attempt"] == 0


def test_cancel_with_force_does_not_ask(daemon: Daemon) -> None:
    job = detached(daemon, "--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done")
    follower = daemon.open("abi", "logs", "-f", job)
    follower.await_out(b"ready")
    pid = show(daemon, job)["pid"]
    assert daemon.run("abi", "cancel", "--force", job).stdout == f"cancelling {job}\n"
    assert follower.wait() == 0
    assert (show(daemon, job)["state"], show(daemon, job)["end"]) == ("done", "cancelled")
    assert daemon.run("abi", "wait", job).returncode == 130
    await_gone([pid])


def test_cancel_kills_who_does_not_listen(impatient: Daemon) -> None:
    job = detached(impatient, "--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done")
    follower = impatient.open("abi", "logs", "-f", job)
    follower.await_out(b"ready")
    pid = show(impatient, job)["pid"]
    assert impatient.run("abi", "cancel", job).stdout == f"cancelling {job}\n"
    assert impatient.run("abi", "wait", job).returncode == 130
    assert show(impatient, job)["end"] == "cancelled"
    await_gone([pid])
    assert impatient.run("abi", "cancel", job).stdout == f"{job} had ended already: cancelled\n"
    assert follower.wait() == 0


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "wait"])
def test_an_unknown_id_is_said_in_json_too(daemon: Daemon, command: str) -> None:
    done = daemon.run("abi", command, "--json", "zzzz")
    assert done.returncode == 3
    assert json.loads(done.stderr)["error"]["code"] == "not_found"


def test_status_has_the_pid_at_the_top(daemon: Daemon) -> None:
    assert daemon.json("abi", "status")["pid"] == daemon.pid


# Leaving it alone.


def waiting_command(fifo: str) -> list[str]:
    return ["sh", "-c", f"echo begun; read x < {fifo}; echo finished"]


def finish(daemon: Daemon, fifo: str) -> None:
    """The job of the last submit goes on to its own end."""
    assert show(daemon, "last")["state"] == "running"
    release(fifo)
    assert daemon.run("abi", "wait", "last").returncode == 0
    assert daemon.run("abi", "logs", "last").stdout == "begun\nfinished\n"


def test_one_interrupt_detaches(daemon: Daemon) -> None:
    fifo = daemon.fifo("go-6")
    program = daemon.open("abi", "submit", "--", *waiting_command(fifo))
    program.await_out(b"begun\n")
    program.signal(signal.SIGINT)
    hint = program.await_err(b"cancels it").decode()
    assert f"abi logs -f {show(daemon, 'last')['short']}" in hint
    assert program.wait() == 130
    assert "Traceback" not in program.err.decode()
    finish(daemon, fifo)


PATIENT = """
import abi_cli.commands.submit
from abi_cli.main import main
abi_cli.commands.submit.SECOND_INTERRUPT_S = 25
raise SystemExit(main())
"""


def submit_patiently(daemon: Daemon, *command: str) -> Program:
    """`abi submit` that gives more time for a second Ctrl-C."""
    return Program([sys.executable, "-c", PATIENT, "submit", "--", *command], daemon.environment)


def test_a_second_interrupt_cancels(daemon: Daemon) -> None:
    program = submit_patiently(daemon, *waiting_command(daemon.fifo("go-7")))
    program.await_out(b"begun\n")
    program.signal(signal.SIGINT)
    program.await_err(b"cancels it")
    program.signal(signal.SIGINT)
    assert program.wait() == 130
    assert b"cancelling " in program.err
    assert await_state(daemon, "last", "done")["end"] == "cancelled"


def test_a_second_interrupt_ends_who_does_not_listen_too(impatient: Daemon) -> None:
    program = submit_patiently(impatient, "sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.01; done")
    pid = int(program.await_out(b"\n"))
    program.signal(signal.SIGINT)
    program.await_err(b"cancels it")
    program.signal(signal.SIGINT)
    assert program.wait() == 130
    assert await_state(impatient, "last", "done")["end"] == "cancelled"
    await_gone([pid])


def test_ctrl_c_reaches_only_who_submitted(daemon: Daemon) -> None:
    """On a terminal, which signals the whole foreground group."""
    fifo = daemon.fifo("go-8")
    master, slave = os.openpty()
    program = daemon.open(
        *("abi", "submit", "--", *waiting_command(fifo)),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=lambda: own_terminal(slave),
    )  # fmt: skip
    os.close(slave)
    await_terminal(master, b"begun")
    os.write(master, b"\x03")
    await_terminal(master, b"cancels it")
    assert program.wait() == 130
    os.close(master)
    finish(daemon, fifo)


def own_terminal(slave: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def await_terminal(master: int, words: bytes) -> bytes:
    import select

    seen = b""
    while words not in seen:
        assert select.select([master], [], [], 30)[0], seen
        seen += os.read(master, 4096)
    return seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_client_that_is_ended_leaves_its_job(daemon: Daemon, number: signal.Signals) -> None:
    fifo = daemon.fifo(f"go-9-{number}")
    program = daemon.open("abi", "submit", "--", *waiting_command(fifo))
    program.await_out(b"begun\n")
    program.signal(number)
    assert program.wait() == -number
    finish(daemon, fifo)


def test_a_closed_terminal_leaves_the_job(daemon: Daemon) -> None:
    fifo = daemon.fifo("go-10")
    master, slave = os.openpty()
    program = daemon.open(
        *("abi", "submit", "--", *waiting_command(fifo)),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=lambda: own_terminal(slave),
    )  # fmt: skip
    os.close(slave)
    await_terminal(master, b"begun")
    os.close(master)
    assert program.wait() == -signal.SIGHUP
    finish(daemon, fifo)


def test_a_reader_that_has_had_enough(daemon: Daemon) -> None:
    program = Program(["sh", "-c", f"{BIN}/abi submit -- yes | head -1"], daemon.environment)
    assert program.wait() == 0
    assert (program.out, program.err) == (b"y\n", b"")
    assert daemon.run("abi", "cancel", "last").returncode == 0
    assert daemon.run("abi", "wait", "last").returncode == 130


# What is left behind, and what is refused.


def test_a_background_child_neither_hangs_nor_stays(daemon: Daemon) -> None:
    """It has a session of its own and keeps the output open: neither makes the job wait, nor saves the child."""
    program = daemon.open("abi", "submit", "--", "sh", "-c", "setsid sh -c 'echo $$; sleep 1000' & echo done")
    assert program.wait() == 0
    words = program.out.split()
    assert b"done" in words
    await_gone(int(word) for word in words if word.isdigit())


def test_what_no_host_has_is_refused_at_once(daemon: Daemon) -> None:
    done = daemon.run("abi", "submit", "--cpus", "64", "--", "true")
    assert done.returncode == 1
    assert "64 CPUs" in done.stderr
    assert "2" in done.stderr
    done = daemon.run("abi", "submit", "--json", "--resource", "licence=1", "--", "true")
    assert done.returncode == 1
    said = json.loads(done.stderr)["error"]
    assert said["code"] == "refused"
    assert "1 licence" in said["message"]
    assert "resources here: license" in said["message"]
    assert all(
        job["command"] != ["true"] or job["end"] != "refused" for job in daemon.json("abi", "jobs", "-a")["jobs"]
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus", "0.00001"], "cpus=1e-05 is finer than resources are counted: in steps of 0.0001"),
        (["--cpus", "0.00019"], "cpus=0.00019 is finer"),
        (["--cpus", "1e20"], "cpus must be from 0 to 1e+14, and is 1e+20"),
        (["--resource", "license=0.00001"], "resource license=1e-05 is finer"),
    ],
)
def test_an_amount_that_cannot_be_counted_is_refused_by_name(daemon: Daemon, words: list[str], said: str) -> None:
    done = daemon.run("abi", "submit", *words, "--", "true")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_full_queue_says_when_to_come_again() -> None:
    made = Daemon(config="[queue]\ntasks_max = 2\n")
    try:
        fifo = made.fifo("go")
        running = detached(made, "--cpus", "2", "--", "sh", "-c", f"read x < {fifo}")
        detached(made, "--", "true")
        done = made.run("abi", "submit", "--", "true")
        assert done.returncode == 75
        assert re.search(r"try again after \d+ ms", done.stderr)
        said = json.loads(made.run("abi", "submit", "--json", "--", "true").stderr)["error"]
        assert said["code"] == "busy"
        assert said["retry_after_ms"] > 0
        release(fifo)
        assert made.run("abi", "wait", running, "last").returncode == 0
        assert made.run("abi", "submit", "--", "true").returncode == 0
    finally:
        made.close()


def test_output_past_its_limit_is_dropped_and_the_command_goes_on() -> None:
    made = Daemon(config="[jobs]\nlog_bytes_max = 8192\nkeep_max = 2\n")
    try:
        done = made.run("abi", "submit", "--", "sh", "-c", "yes | head -c 100000; exit 5")
        assert done.returncode == 5
        assert 4000 < len(done.stdout) <= 8192
        dropped = 100_000 - len(done.stdout)
        why = "jobs.log_bytes_max (8192 bytes) is reached"
        assert f"abi: discarded: {dropped} bytes of its output: {why}\n" in done.stderr
        first = made.json("abi", "jobs", "-a")["jobs"][0]["short"]
        assert (show(made, first)["discarded_bytes"], show(made, first)["why_discarded"]) == (dropped, why)
        assert f"discarded  {dropped} bytes of its output: {why}" in made.run("abi", "show", first).stdout
        for _ in range(2):
            assert made.run("abi", "submit", "--", "true").returncode == 0
        assert made.run("abi", "show", first).returncode == 3  # more than two are not kept
        assert len(list((made.state_dir / "jobs").iterdir())) == 2
    finally:
        made.close()


def test_who_succeeds_and_is_not_heard_whole_is_no_success() -> None:
    made = Daemon(config="[jobs]\nlog_bytes_max = 8192\n")
    try:
        done = made.run("abi", "submit", "--", "sh", "-c", "head -c 100000 /dev/zero; echo END; echo why >&2")
        assert done.returncode == 74
        assert "why\n" in done.stderr
        waited = made.run("abi", "wait", "last")
        assert waited.returncode == 74
        assert f"discarded: {100_004 - len(done.stdout)} bytes" in waited.stderr
        assert made.run("abi", "submit", "--json", "--", "head", "-c", "9000", "/dev/zero").returncode == 74
    finally:
        made.close()


def test_a_log_that_cannot_be_written_fails_its_job_alone(daemon: Daemon) -> None:
    jobs = daemon.state_dir / "jobs"
    hidden = jobs.rename(daemon.state_dir / "hidden")
    try:
        done = daemon.run("abi", "submit", "--", "true")
        assert done.returncode == 126
        assert "its log" in done.stderr
        assert "cannot be written" in done.stderr
    finally:
        hidden.rename(jobs)
    assert daemon.run("abi", "submit", "--", "true").returncode == 0


# It goes without its command.


@pytest.mark.parametrize("victim", ["supervisor", "zygote"])
def test_a_command_that_is_started_again_says_so(daemon: Daemon, victim: str) -> None:
    fifo = daemon.fifo(f"again-{victim}")
    program = daemon.open("abi", "submit", "--", "sh", "-c", f"echo begun $$; read x < {fifo}; echo over")
    (first,) = re.findall(rb"begun (\d+)\n", program.await_out(b"\n"))
    supervisor = parent_of(int(first))
    os.kill(supervisor if victim == "supervisor" else parent_of(supervisor), signal.SIGKILL)
    program.await_err(b"the command is started again, attempt 2\n")
    assert (b"abi: its supervisor was killed by SIGKILL" in program.err) == (victim == "supervisor")
    assert (b"abi: its supervisor's zygote ended: " in program.err) == (victim == "zygote")
    await_gone([int(first)])
    release(fifo)
    assert program.wait() == 0
    (second,) = re.findall(rb"begun (\d+)\nover\n$", program.out)
    assert program.out == b"begun %b\nbegun %b\nover\n" % (first, second)
    assert show(daemon, "last")["attempt"] == 2


# The daemon goes.


def test_a_daemon_that_stops_says_so_to_who_follows() -> None:
    made = Daemon(config="[daemon]\ndrain_timeout_ms = 100\n")
    try:
        program = made.open("abi", "submit", "--", "sh", "-c", "echo begun; sleep 60")
        program.await_out(b"begun\n")
        waiter = made.open("abi", "wait", "last")
        assert made.run("abid", "stop").returncode == 0
        assert program.wait() == 69
        assert waiter.wait() == 69
        assert b"stopped" in program.err
        assert b"Traceback" not in program.err + waiter.err
    finally:
        made.close()


def test_the_output_of_jobs_that_nobody_can_ask_for_does_not_stay() -> None:
    made = Daemon()
    try:
        assert made.run("abi", "submit", "--", "echo", "hi").returncode == 0
        (log,) = (made.state_dir / "jobs").iterdir()
        made.kill()
        made.wait()
        made.start()
        assert not log.exists()
        assert made.run("abi", "submit", "--", "echo", "hi").returncode == 0
        assert len(list((made.state_dir / "jobs").iterdir())) == 1
    finally:
        made.close()


def test_a_daemon_that_is_killed_is_missed_at_once() -> None:
    made = Daemon()
    try:
        program = made.open("abi", "submit", "--", "sh", "-c", "echo begun; sleep 60")
        program.await_out(b"begun\n")
        made.kill()
        assert program.wait() == 69
        assert b"went away" in program.err
        made.wait()
    finally:
        made.close()
