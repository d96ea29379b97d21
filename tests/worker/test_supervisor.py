"""Commands: their output is kept as it comes, their end is told, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from abi.wire.job_log import HEAD
from abi.wire.schema import Command, CommandEnded, CommandSignal, Kind
from abi_worker.command_log import CommandLog
from tests.worker.zygote_harness import Process, Zygote, await_death

ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C"}


def shell(script: str, **changes: object) -> Command:
    return command(["sh", "-c", script], **changes)


def command(argv: list[str], **changes: object) -> Command:
    values = {"argv": argv, "directory": "/", "environment": ENVIRONMENT, "log_bytes_max": 0, **changes}
    values["argv"] = [os.fsencode(word) for word in argv]
    values["directory"] = os.fsencode(str(values["directory"]))
    values["environment"] = {os.fsencode(k): os.fsencode(v) for k, v in dict(values["environment"]).items()}  # type: ignore[call-overload]
    return Command(**values)  # type: ignore[arg-type]


class Job:
    _numbers = iter(range(1000, 2000))

    def __init__(self, zygote: Zygote, directory: Path, what: Command, *signals: CommandSignal) -> None:
        self.zygote, self.path = zygote, directory / "log"
        self.process: Process = zygote.supervisor(next(self._numbers), str(self.path), what, *signals)

    def end(self) -> CommandEnded:
        ended: CommandEnded = self.process.side.await_item(Kind.COMMAND_ENDED)
        assert self.zygote.exit_of(self.process) == 0
        assert ended.size == self.path.stat().st_size
        return ended

    def started(self) -> int:
        pid: int = self.process.side.await_item(Kind.COMMAND_STARTED).pid
        return pid

    def output(self) -> dict[int, bytes]:
        """What came through each stream, out of whole records."""
        data, at, streams = self.path.read_bytes(), 0, {1: b"", 2: b""}
        while at < len(data):
            stream, length, wall_ns = HEAD.unpack_from(data, at)
            assert abs(time.time_ns() - wall_ns) < 3600 * 10**9
            at += HEAD.size
            streams[stream] += data[at : at + length]
            at += length
        assert at == len(data)
        return streams


def test_output_and_exit_code(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, shell("echo hi; echo err >&2; exit 7"))
    assert os.waitstatus_to_exitcode(job.end().status) == 7
    assert job.output() == {1: b"hi\n", 2: b"err\n"}


def test_a_command_has_the_world_it_was_given(shared_zygote: Zygote, tmp_path: Path) -> None:
    script = "pwd; env | sort; cat; ls /proc/self/fd | wc -l; ps -o sid= -p $$ | tr -d ' '; echo $$"
    environment = {**ENVIRONMENT, "COLOUR": "blue"}
    job = Job(shared_zygote, tmp_path, shell(script, directory=str(tmp_path), environment=environment))
    assert job.end().status == 0
    lines = job.output()[1].decode().splitlines()
    assert lines[0] == str(tmp_path)
    assert "COLOUR=blue" in lines
    assert lines[-3] == "4", "stdin, stdout, stderr, and the directory that ls reads"
    assert lines[-2] == lines[-1], "it leads a session of its own"


C_LIBRARYS_OWN = 0b11 << 31
"""Signals 32 and 33 belong to it (nptl(7)): nobody else can set them, and it may have them blocked for a moment."""


def test_default_signals(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, shell("grep -E 'Sig(Blk|Ign)' /proc/self/status"))
    job.end()
    masks = [int(line.split()[1], 16) for line in job.output()[1].decode().splitlines()]
    assert len(masks) == 2
    assert not any(mask & ~C_LIBRARYS_OWN for mask in masks)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (command(["no-such-command-here"]), "not found in PATH"),
        (command(["/no/such/file"]), "does not exist"),
        (command(["/etc/passwd"]), "is not executable"),
        (command(["true"], directory="/no/such/place"), "'/no/such/place': No such file"),
        (command([]), "no command"),
        (command(["tr\0ue"]), "null character"),
    ],
)
def test_what_cannot_start_says_why(shared_zygote: Zygote, tmp_path: Path, what: Command, words: str) -> None:
    assert words in Job(shared_zygote, tmp_path, what).end().error


def test_signals_reach_the_whole_group(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, shell("sleep 1000 & echo $!; wait"))
    job.started()
    job.process.side.await_item(Kind.COMMAND_GREW)
    child = int(job.output()[1])
    job.process.side.send(Kind.COMMAND_SIGNAL, CommandSignal(signal.SIGTERM))
    assert os.waitstatus_to_exitcode(job.end().status) == -signal.SIGTERM
    await_death(child)


def test_a_signal_that_comes_with_its_command_is_not_lost(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, command(["sleep", "1000"]), CommandSignal(signal.SIGTERM))
    assert os.waitstatus_to_exitcode(job.end().status) == -signal.SIGTERM


def test_what_the_command_left_running_ends_with_it(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, shell("setsid sleep 1000 & echo $!"))
    assert job.end().status == 0
    await_death(int(job.output()[1]))


def test_output_is_told_at_once_and_then_not_too_often(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, shell("echo first; exec sleep 1000"))
    assert job.process.side.await_item(Kind.COMMAND_GREW).size == HEAD.size + len("first\n")
    job.process.side.send(Kind.COMMAND_SIGNAL, CommandSignal(signal.SIGKILL))
    job.end()
    chatty = "import time\nfor n in range(200): print(n, flush=True); time.sleep(0.001)"
    began = time.monotonic()
    job = Job(shared_zygote, tmp_path, command([sys.executable, "-c", chatty]))
    job.end()
    told = sum(kind == Kind.COMMAND_GREW for kind, _, _ in job.process.side.inbox)
    assert told <= (time.monotonic() - began) / 0.02 + 2


def test_a_daemon_that_does_not_read_blocks_nothing(shared_zygote: Zygote, tmp_path: Path) -> None:
    """Twenty megabytes, and the end, while nobody looks at the socket."""
    job = Job(shared_zygote, tmp_path, shell("head -c 20000000 /dev/zero; echo done >&2"))
    while not (job.path.exists() and job.path.read_bytes().endswith(b"done\n")):
        time.sleep(0.01)
    assert job.end().status == 0
    assert len(job.output()[1]) == 20_000_000


def test_past_its_limit_output_is_discarded_and_that_is_said_once(shared_zygote: Zygote, tmp_path: Path) -> None:
    job = Job(shared_zygote, tmp_path, shell("head -c 1000000 /dev/zero; exit 3", log_bytes_max=100_000))
    ended = job.end()
    assert os.waitstatus_to_exitcode(ended.status) == 3
    output = job.output()
    assert 93_000 < len(output[1]) <= 94_000
    assert ended.discarded == 1_000_000 - len(output[1])
    assert ended.why_discarded == "jobs.log_bytes_max (100000 bytes) is reached"
    assert output[2].count(b"the stdout from here on is discarded: jobs.log_bytes_max (100000 bytes)") == 1
    assert job.path.stat().st_size < 101_000


def test_stderr_is_kept_though_stdout_is_full(shared_zygote: Zygote, tmp_path: Path) -> None:
    script = "head -c 1000000 /dev/zero; echo why it failed >&2; head -c 100000 /dev/zero >&2"
    job = Job(shared_zygote, tmp_path, shell(script, log_bytes_max=100_000))
    ended = job.end()
    output = job.output()
    assert b"why it failed\n" in output[2]
    assert output[2].count(b"the stderr from here on is discarded") == 1
    written = 1_000_000 + len("why it failed\n") + 100_000
    said = sum(len(line) + 1 for line in output[2].splitlines() if line.startswith(b"abi: ")) + 2  # and two breaks
    assert ended.discarded == written - len(output[1]) - (len(output[2]) - said)


def test_what_a_full_disk_does_not_take_is_counted(tmp_path: Path) -> None:
    with open("/dev/full", "ab", buffering=0) as full:
        log = CommandLog(full.fileno(), 0)
        log.append(1, b"lost")
        log.append(2, b"too")
        assert (log.size, log.discarded, log.why_discarded) == (0, 7, "No space left on device")
