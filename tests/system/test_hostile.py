"""Clients that are broken, rude or evil: each gets a clear word and nothing else, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from abi.wire.codec import decode_failure
from abi.wire.schema import Empty, EndKind, Function, Kind, Options, Reference, Task
from abid.clients import ACCEPT_AGAIN_S
from tests.system.harness import Daemon, Program, eventually, rss_bytes
from tests.system.raw import HEADER, JSON, MSGPACK, Raw, hello

NEIGHBOUR = """
import sys
import abi

@abi.remote
def double(x):
    return 2 * x

for line in sys.stdin:
    print(abi.get(double.remote(int(line))), flush=True)
"""
MIB = 1 << 20


class Neighbour:
    """Other people's work: a program that calls tasks now and then, and a command that runs all the time."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.fifo = daemon.fifo("end")
        self.job = daemon.open("abi", "submit", "--", "sh", "-c", f"echo begun; read x < {self.fifo}; exit 5")
        self.job.await_out(b"begun\n")
        self.program = Program([sys.executable, "-c", NEIGHBOUR], daemon.environment, stdin=-1)
        self.calls = 0

    def is_well(self) -> None:
        self.calls += 1
        stdin = self.program.process.stdin
        assert stdin is not None
        stdin.write(f"{self.calls}\n".encode())
        stdin.flush()
        self.program.await_out(f"{2 * self.calls}\n".encode())
        assert self.program.out.count(b"\n") == self.calls
        assert self.daemon.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
        assert self.job.process.poll() is None

    def close(self) -> None:
        Path(self.fifo).write_text("go\n")
        assert self.job.wait() == 5
        stdin = self.program.process.stdin
        assert stdin is not None
        stdin.close()
        assert self.program.wait() == 0, self.program.err


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    made = Daemon(cpus=4, config="[queue]\nunread_results_bytes_max = 2097152\n[tasks]\nsession_grace_ms = 300\n")
    yield made
    assert "Traceback" not in made.log()
    made.close()


@pytest.fixture(scope="module")
def neighbour(daemon: Daemon) -> Iterator[Neighbour]:
    made = Neighbour(daemon)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nobody_is_disturbed(neighbour: Neighbour) -> Iterator[None]:
    yield
    neighbour.is_well()


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


# Greetings.


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"\xff" * 5000,
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
        HEADER.pack(0xFFFFFFFF, Kind.HELLO, JSON, 0),
        HEADER.pack(2 * MIB, Kind.HELLO, JSON, 0),
        HEADER.pack(4, Kind.HELLO, 9, 0) + b"what",
        HEADER.pack(4, Kind.HELLO, JSON, 65535) + b"what",
    ],
)
def test_bytes_that_are_no_protocol(daemon: Daemon, junk: bytes) -> None:
    with Raw(daemon) as raw:
        raw.sock.sendall(junk)
        said = raw.refusal()
        assert said["code"] == "protocol"
        assert "not a frame of this protocol" in said["message"]


def program_with(value: str) -> Any:
    return hello("session")["program"] | {"environment": {"NAME": value}}


@pytest.mark.parametrize(
    ("kind", "codec", "payload", "words"),
    [
        (Kind.REQUEST, JSON, b'{"id": 1, "op": "stop"}', "begins with HELLO"),
        (Kind.HELLO, MSGPACK, b"\x80", "begins with HELLO"),
        (Kind.HELLO, JSON, b"{", "not readable"),
        (Kind.HELLO, JSON, b"\xff\xfe", "not readable"),
        (Kind.HELLO, JSON, b"[" * 100_000, "not readable"),
        (Kind.HELLO, JSON, b"{}", "not readable"),
        (Kind.HELLO, JSON, b'{"protocol": "one"}', "not readable"),
        (Kind.HELLO, JSON, b'{"protocol": []}', "not readable"),
        (Kind.HELLO, JSON, b'{"protocol": [1e999]}', "not readable"),
        (Kind.HELLO, JSON, b'{"protocol": [1, 0]}', "not readable"),
        (Kind.HELLO, JSON, {"role": "king"}, "there is no role 'king'"),
        (Kind.HELLO, JSON, {"role": "session", "program": None}, "must describe its program"),
        (Kind.HELLO, JSON, {"role": "session", "resume": "zz" * 8}, "not the prefix of a session"),
        (Kind.HELLO, JSON, {"role": "session", "resume": "../../etc/passwd"}, "not the prefix"),
        (Kind.HELLO, JSON, {"role": "session", "resume": "0" * 16, "token": "caf\udce9"}, "not readable"),
        (Kind.HELLO, JSON, {"role": "caf\udce9"}, "not readable"),
        (Kind.HELLO, JSON, {"namespace": "caf\udce9"}, "not readable"),
        (Kind.HELLO, JSON, {"role": "session", "program": program_with("\ud800")}, "can be no name"),
        (Kind.HELLO, JSON, {"role": "session", "program": program_with("a\0b")}, "can be no name"),
    ],
)
def test_greetings_that_make_no_sense(
    daemon: Daemon, kind: int, codec: int, payload: bytes | dict[str, Any], words: str
) -> None:
    """A dict is what differs from a good greeting."""
    with Raw(daemon) as raw:
        raw.send(kind, payload if isinstance(payload, bytes) else json.dumps(hello(**payload)).encode(), codec)
        said = raw.refusal()
        assert said["code"] == "protocol"
        assert words in said["message"]


def test_a_newer_protocol_is_told_both_numbers(daemon: Daemon) -> None:
    with Raw(daemon) as raw:
        raw.send(Kind.HELLO, json.dumps({"protocol": [7, 3], "new": {"words": []}}).encode(), JSON)
        said = raw.refusal()
        assert said["code"] == "version"
        assert "speaks protocol 1" in said["message"]
        assert "the client protocol 7" in said["message"]
        assert said["hint"] == "upgrade the older of the two"
    with Raw(daemon) as raw:  # a newer minor is welcome, whatever it adds
        raw.greet(protocol=[1, 9], features=["telepathy"], unheard_of={"x": 1})
        assert raw.request("ping")["result"]["pid"] == daemon.pid


def test_half_a_frame_and_gone(daemon: Daemon) -> None:
    before = descriptors(daemon)
    for cut in range(1, 60, 7):
        with Raw(daemon) as raw:
            raw.sock.sendall(
                (HEADER.pack(200, Kind.HELLO, JSON, 0) + b'{"protocol": [1, 0], "role": ' + b" " * 40)[:cut]
            )
    eventually(lambda: descriptors(daemon) <= before, "their connections are closed")


@pytest.fixture
def impatient() -> Iterator[Daemon]:
    """It waits no longer than 0.4 s for a greeting."""
    made = Daemon(before="import abid.clients\nabid.clients.GREETING_S = 0.4")
    yield made
    assert "Traceback" not in made.log()
    made.close()


def greeted(daemon: Daemon) -> Raw | None:
    raw = Raw(daemon)
    try:
        return raw.greet()
    except (AssertionError, EOFError, OSError):  # a busy machine kept us from greeting in time
        raw.sock.close()
        return None


def test_who_says_nothing_is_asked_to_leave(impatient: Daemon) -> None:
    """Saying a little now and then is no way around it."""
    with Raw(impatient) as idle, eventually(lambda: greeted(impatient), "it is greeted") as silent:
        assert "no greeting within" in silent_refusal(Raw(impatient))
        dribbler = Raw(impatient)
        data = HEADER.pack(100_000, Kind.HELLO, JSON, 0) + b" " * 100_000
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for byte in data:
                dribbler.sock.sendall(bytes([byte]))
                time.sleep(0.005)
        assert time.monotonic() - began < 10
        dribbler.sock.close()
        assert idle.refusal()["code"] == "protocol"
        assert silent.request("ping")["result"]["pid"] == impatient.pid  # who has greeted may be silent


def silent_refusal(raw: Raw) -> str:
    with raw:
        return str(raw.refusal()["message"])


def test_somebody_elses_session_is_not_to_be_had(daemon: Daemon) -> None:
    with Raw(daemon).greet("session") as mine:
        for token in ("", "guess", "\u00fc" * 16, mine.welcome["token"][:-1]):
            with Raw(daemon) as thief:
                words = hello("session", resume=mine.welcome["session"], token=token)
                thief.send(Kind.HELLO, json.dumps(words).encode(), JSON)
                assert thief.refusal()["code"] == "denied"
        mine.define(lambda: 7)
        mine.submit(1)
        assert mine.items(Kind.END)[0].kind == EndKind.OK


# Programs.


@pytest.mark.parametrize(
    ("kind", "codec", "payload", "words"),
    [
        (Kind.SUBMIT, JSON, b"[]", "speaks msgpack"),
        (Kind.SUBMIT, MSGPACK, b"\xc1", "SUBMIT does not decode"),
        (Kind.SUBMIT, MSGPACK, b"\xdd\xff\xff\xff\xff", "SUBMIT does not decode"),
        (Kind.SUBMIT, MSGPACK, b"\x91" * 10_000, "SUBMIT does not decode"),
        (Kind.SUBMIT, MSGPACK, b"\x91\x93\x01\x00\x00", "which was never defined"),
        (Kind.SUBMIT, MSGPACK, b"\x91\x93\x01\xff\x00", "never defined"),
        (Kind.SUBMIT, MSGPACK, b"\x91\x93\x01\x00\xff", "never defined"),
        (Kind.RESULT, MSGPACK, b"\x90", "has no place on this connection"),
        (Kind.FORK, MSGPACK, b"\x90", "has no place on this connection"),
        (250, MSGPACK, b"\x90", "has no place on this connection"),
        (Kind.OPTIONS, MSGPACK, b"\x91\x93\x05\xa0\x01", "defined out of order"),
        (Kind.OPTIONS, MSGPACK, b"\x91\x93\x00\xa0\xff", "negative amount"),
    ],
)
def test_frames_that_make_no_sense(daemon: Daemon, kind: int, codec: int, payload: bytes, words: str) -> None:
    with Raw(daemon).greet("session") as raw:
        raw.send(kind, payload, codec)
        said = raw.refusal()
        assert said["code"] == "protocol"
        assert words in said["message"]


def test_a_frame_that_is_too_large(daemon: Daemon) -> None:
    with Raw(daemon).greet("session") as raw:
        raw.sock.sendall(HEADER.pack(17 * MIB, Kind.SUBMIT, MSGPACK, 0))
        assert "not a frame of this protocol" in raw.refusal()["message"]


def test_the_largest_frame_in_the_smallest_pieces(daemon: Daemon, neighbour: Neighbour) -> None:
    """It takes the daemon no more than its bytes: their square would be half a minute of it."""
    with Raw(daemon).greet("session") as raw:
        before = cpu_s(daemon)
        data = HEADER.pack(16 * MIB, Kind.SUBMIT, MSGPACK, 0) + bytes(4 * MIB)
        raw.sock.sendall(data)
        for _ in range(3000):
            raw.sock.sendall(b"\0")
        neighbour.is_well()
        assert cpu_s(daemon) - before < 10


def cpu_s(daemon: Daemon) -> float:
    words = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_descriptors_that_belong_to_nothing(daemon: Daemon) -> None:
    before = descriptors(daemon)
    fd = os.memfd_create("stray")
    with Raw(daemon).greet("session") as raw:
        raw.say(Kind.OPTIONS, Options(0))
        for kind in (Kind.OPTIONS, Kind.WANT, Kind.BORROW, Kind.CANCEL):
            for _ in range(8):
                raw.say(kind, *([Options(0)] if kind == Kind.OPTIONS else []), fds=[fd] * 250)
        raw.say(Kind.SUBMIT, fds=[fd] * 250)
        raw.say(Kind.RELEASE, fds=[fd] * 250)
        raw.define(lambda: 1)
        raw.submit(1)
        assert raw.items(Kind.END)[0].kind == EndKind.OK  # all before it was read
        eventually(lambda: descriptors(daemon) < before + 30, "descriptors that nobody took are closed")
    with Raw(
        daemon
    ) as raw:  # a frame of one byte's payload that never comes, with descriptors beside each of its bytes
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for byte in HEADER.pack(1000, Kind.HELLO, JSON, 0) + bytes(1000):
                socket.send_fds(raw.sock, [bytes([byte])], [fd] * 250)
        assert "belong to no frame" in raw.refusal()["message"]
    with Raw(daemon) as raw:
        raw.send(Kind.HELLO, json.dumps(hello()).encode(), JSON, count=3)
        assert "names 3 descriptors; 0 came" in raw.refusal()["message"]
    os.close(fd)
    eventually(lambda: descriptors(daemon) < before + 30, "and with their connections too")


def payloads() -> dict[str, tuple[int, int]]:
    """Descriptors that cannot be what they are said to be, and the size that is announced."""
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 200_000)
    import fcntl

    short = os.memfd_create("short", os.MFD_ALLOW_SEALING)
    os.ftruncate(short, 1000)
    fcntl.fcntl(short, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    read_end, write_end = os.pipe()
    os.close(write_end)
    return {
        "unsealed": (unsealed, 200_000),
        "short": (short, 200_000),
        "pipe": (read_end, 200_000),
        "huge": (short, 1 << 62),
        "file": (os.open("/etc/passwd", os.O_RDONLY), 200_000),
        "zero": (os.open("/dev/zero", os.O_RDONLY), 200_000),
    }


@pytest.mark.parametrize("sort", ["unsealed", "short", "pipe", "huge", "file", "zero"])
def test_payloads_that_are_not_what_they_say(daemon: Daemon, sort: str) -> None:
    """They could kill who reads them (SIGBUS), or keep him for ever. The task fails with words; its worker lives on."""
    made = payloads()
    fd, size = made[sort]
    with Raw(daemon).greet("session") as raw:
        raw.define(lambda *arguments: len(arguments))
        raw.say(Kind.SUBMIT, Task(1, 0, 0, size=size), fds=[fd])
        (end,) = raw.items(Kind.END)
        assert end.kind == EndKind.ERROR, end
        failure = decode_failure(end.payload)
        assert "memfd" in failure.text, failure
        raw.submit(2, "x")
        assert raw.items(Kind.END)[0].kind == EndKind.OK
    for other, _ in set(made.values()):
        try:
            os.close(other)
        except OSError:
            continue


def is_idle(daemon: Daemon) -> bool:
    before = cpu_s(daemon)
    time.sleep(0.1)  # nothing is awaited: nothing must happen
    return cpu_s(daemon) - before < 0.08


def test_an_interpreter_that_is_none(daemon: Daemon) -> None:
    """Its tasks fail, and say why; nothing tries for ever."""
    strange = os.fsencode(daemon.folder) + b"/caf\xe9"
    os.symlink("/bin/false", strange)
    for executable in ("/no/such/python", "/bin/false", os.fsdecode(strange), "/no/caf\udce9"):
        words = hello("session")
        words["program"]["interpreter"]["executable"] = executable
        with Raw(daemon) as raw:
            raw.send(Kind.HELLO, json.dumps(words).encode(), JSON)
            raw.object(Kind.WELCOME)
            raw.define(lambda: 1)
            raw.submit(1)
            (end,) = raw.items(Kind.END)
            assert end.kind == EndKind.CRASHED
            assert "could not be started" in decode_failure(end.payload).text
        eventually(lambda: is_idle(daemon), "nothing is tried any more")


# Who does not read.


def test_control_answers_that_nobody_reads(daemon: Daemon, neighbour: Neighbour) -> None:
    before = rss_bytes(daemon.pid)
    with Raw(daemon).greet() as raw:
        raw.sock.settimeout(0.5)
        request = json.dumps({"id": 1, "op": "config"}).encode()
        data = (HEADER.pack(len(request), Kind.REQUEST, JSON, 0) + request) * 1000
        with pytest.raises(TimeoutError):  # at last it is not read from any more
            for _ in range(1000):
                raw.sock.sendall(data)
        neighbour.is_well()
        assert rss_bytes(daemon.pid) - before < 48 * MIB
        raw.sock.settimeout(30)
        answers = 0
        while answers < 1000:  # and when we read, all comes
            assert json.loads(raw.frame()[1])["result"]["values"]
            answers += 1


def test_results_that_nobody_reads(daemon: Daemon, neighbour: Neighbour) -> None:
    """5,000 results of 90 KB: 450 MB if they all came to be."""
    before = rss_bytes(daemon.pid)
    with Raw(daemon).greet("session") as raw:
        raw.define(lambda: bytes(90_000))
        raw.say(Kind.SUBMIT, *(Task(seq, 0, 0) for seq in range(1, 5001)))
        finished = [-1]

        def stands_still() -> bool:
            finished.append(daemon.ask("status")["tasks"]["finished"])
            return finished[-1] == finished[-2]

        eventually(stands_still, "nothing of it starts any more")
        neighbour.is_well()
        assert rss_bytes(daemon.pid) - before < 96 * MIB
        seen = 0
        while seen < 5000:
            ends = raw.items(Kind.END)
            seen += len(ends)
            raw.send(Kind.RELEASE, __import__("msgspec").msgpack.encode([end.seq for end in ends]))
            assert {end.kind for end in ends} == {EndKind.OK}


def test_ends_that_are_asked_for_again_and_again(daemon: Daemon, neighbour: Neighbour) -> None:
    before = rss_bytes(daemon.pid)
    with Raw(daemon).greet("session") as raw:
        raw.define(lambda: bytes(90_000))
        raw.submit(1)
        raw.items(Kind.END)
        raw.sock.settimeout(0.5)
        wants = b"\xdd" + (100_000).to_bytes(4, "big") + b"\x91\x01" * 100_000
        frame = HEADER.pack(len(wants), Kind.WANT, MSGPACK, 0) + wants
        single = HEADER.pack(3, Kind.WANT, MSGPACK, 0) + b"\x91\x91\x01"
        with pytest.raises(TimeoutError):
            for _ in range(20):
                raw.sock.sendall(frame)
            for _ in range(1000):
                raw.sock.sendall(single * 1000)
        neighbour.is_well()
        assert rss_bytes(daemon.pid) - before < 64 * MIB


def test_lines_that_nobody_reads(daemon: Daemon, neighbour: Neighbour) -> None:
    """The task's own prints block; the daemon does not keep what it says."""

    def babble() -> None:
        for _ in range(3000):
            print("x" * 65_000)

    before = rss_bytes(daemon.pid)
    with Raw(daemon).greet("session") as raw:
        raw.define(babble)
        raw.submit(1)
        eventually(lambda: daemon.ask("status")["tasks"]["running"] >= 2, "it runs")
        for _ in range(5):
            neighbour.is_well()
        assert rss_bytes(daemon.pid) - before < 300 * MIB
        total = 0
        while True:
            kind, payload = raw.frame()
            if kind == Kind.END:
                break
            total += payload.count(b"x")
        assert total == 3000 * 65_000


# Many.


def test_a_thousand_idle_connections(daemon: Daemon, neighbour: Neighbour) -> None:
    idle = [Raw(daemon) for _ in range(500)] + [Raw(daemon).greet() for _ in range(500)]
    neighbour.is_well()
    for raw in idle:
        raw.sock.close()


def test_when_all_places_are_taken_there_is_one_for_who_asks() -> None:
    """256 descriptors, so 64 connections. The idle ones make room, programs and followers stay."""
    made = Daemon(before="import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))")
    try:
        program = Raw(made).greet("session")
        follower = made.open("abi", "submit", "--", "sh", "-c", "echo begun; read x < " + made.fifo("go"))
        follower.await_out(b"begun\n")
        idle = [Raw(made).greet() for _ in range(100)]
        strangers = [Raw(made) for _ in range(100)]
        assert made.run("abi", "status").returncode == 0
        assert made.run("abi", "submit", "--", "echo", "hi").stdout == "hi\n"
        assert idle[0].refusal()["code"] == "busy"
        program.define(lambda: 3)
        program.submit(1)
        assert program.items(Kind.END)[0].kind == EndKind.OK
        (made.folder / "go").write_text("go\n")
        assert follower.wait() == 0
        for raw in (*idle, *strangers, program):
            raw.sock.close()
        assert made.run("abid", "stop").returncode == 0
    finally:
        made.close()


def test_more_programs_than_may_be_are_told_so() -> None:
    """128 descriptors, so 32 connections and 24 programs."""
    made = Daemon(before="import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))")
    try:
        programs = [Raw(made).greet("session") for _ in range(24)]
        with Raw(made) as late:
            late.send(Kind.HELLO, json.dumps(hello("session")).encode(), JSON)
            said = late.refusal()
        assert said["code"] == "busy"
        assert "24 programs are connected" in said["message"]
        assert made.run("abi", "status").returncode == 0
        done = made.run("python", "-c", "import abi; abi.put(1)")
        assert "24 programs are connected" in done.stderr
        programs.pop().say(Kind.BYE, Empty())
        eventually(lambda: made.run("python", "-c", "import abi; abi.put(1)").returncode == 0, "there is room again")
        for raw in programs:
            raw.sock.close()
    finally:
        made.close()


def test_when_there_is_no_descriptor_left_it_waits_for_one() -> None:
    """The daemon neither spins nor dies."""
    made = Daemon()
    try:
        assert made.run("abi", "status").returncode == 0
        opened = len(os.listdir(f"/proc/{made.pid}/fd"))
        began, allowed = time.monotonic(), resource.prlimit(made.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (opened, allowed[1]))
        with contextlib.ExitStack() as knocking:

            def failures() -> int:
                return made.log().count("could not be accepted")

            def is_noticed() -> bool:
                knocking.enter_context(Raw(made))  # the first may have the place of who asked for the status
                return failures() > 0

            eventually(is_noticed, "it notices")
            time.sleep(0.3)
            assert failures() <= (time.monotonic() - began) / ACCEPT_AGAIN_S + 2, "it looks away in between"
        resource.prlimit(made.pid, resource.RLIMIT_NOFILE, allowed)
        eventually(lambda: made.run("abi", "status").returncode == 0, "it serves again")
        assert "Traceback" not in made.log()
    finally:
        made.close()


# Requests.


REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"op": "fly"}, "usage"),
    ({"op": "show"}, "usage"),
    ({"op": "show", "target": ""}, "not_found"),
    ({"op": "show", "target": ["x"]}, "not_found"),
    ({"op": "show", "target": "z" * 26}, "not_found"),
    ({"op": "logs", "target": "last", "offset": "x"}, "usage"),
    ({"op": "logs", "target": "last", "streams": 7}, "usage"),
    ({"op": "wait"}, "usage"),
    ({"op": "wait", "ids": 7}, "usage"),
    ({"op": "wait", "ids": [None]}, "not_found"),
    ({"op": "cancel", "target": {}}, "not_found"),
    ({"op": "submit"}, "usage"),
    ({"op": "submit", "command": "echo", "cwd": "/"}, "usage"),
    ({"op": "submit", "command": [], "cwd": "/"}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "relative"}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "env": [1]}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "env": {"A": 1}}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "cpus": -1}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "cpus": "many"}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "memory": -5}, "protocol"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "resources": {"cpus": 1}}, "protocol"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "time_limit_ms": 10**30}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "priority": "urgent"}, "usage"),
    ({"op": "submit", "command": ["x"], "cwd": "/", "durable": True}, "usage"),
]


def test_requests_that_make_no_sense_are_answered(daemon: Daemon) -> None:
    assert daemon.run("abi", "submit", "--", "true").returncode == 0
    with Raw(daemon).greet() as raw:
        for words, code in REQUESTS:
            answer = raw.request(**words)
            assert answer.get("error", {}).get("code") == code, (words, answer)
        for words in ({"target": "last", "offset": 1 << 61}, {"target": "last", "offset": -5}):
            answer = raw.request("logs", **words)
            assert answer.get("result", {}).get("end") == "ok", answer
        assert raw.request("ping")["result"]["pid"] == daemon.pid


def test_words_that_no_command_can_have(daemon: Daemon) -> None:
    """Accepted as a job, since only exec can tell; each ends by itself and says why."""
    cases: list[dict[str, Any]] = [
        {"command": ["tr\0ue"]},
        {"command": ["true", "a\0b"]},
        {"command": ["true"], "env": {"A=B": "c"}},
        {"command": ["true"], "env": {"": "c"}},
        {"command": ["true"], "env": {"A": "c\0d"}},
        {"command": ["true"], "cwd": "/\0"},
        {"command": ["true", "x" * 200_000]},
    ]
    with Raw(daemon).greet() as raw:
        for words in cases:
            job = raw.request("submit", **{"cwd": "/", **words})["result"]
            ended = raw.request("wait", ids=[job["id"]])["result"]["jobs"][0]
            if ended["end"] != "ok":  # some of these Linux takes
                assert (ended["code"], bool(ended["error"])) == (126, True), (words, ended["code"], ended["error"])


def test_requests_that_are_none(daemon: Daemon) -> None:
    for payload in (b"", b"{", b"[]", b"7", b'{"id": "x", "op": "ping"}', b'{"id": 1}', b'{"id": 1, "op": 7}', b"\xff"):
        with Raw(daemon).greet() as raw:
            raw.send(Kind.REQUEST, payload, JSON)
            assert raw.refusal()["message"] == "a request needs `id` and `op`"
    for number in (b"1e400", b"-1", b"9" * 5000, b"null", b"true"):
        with Raw(daemon).greet() as raw:
            raw.send(Kind.REQUEST, b'{"op": "ping", "id": ' + number + b"}", JSON)
            assert raw.refusal()["code"] == "protocol"


def test_a_client_that_goes_in_the_middle_of_everything(daemon: Daemon) -> None:
    before = descriptors(daemon)
    for _ in range(20):
        with Raw(daemon).greet("session") as raw:
            raw.define(lambda: __import__("time").sleep(60))
            raw.submit(1)
            raw.say(Kind.WANT, Reference(1))
    with Raw(daemon).greet() as raw:
        raw.send(Kind.REQUEST, json.dumps({"id": 1, "op": "wait", "ids": ["last"]}).encode(), JSON)
    eventually(lambda: descriptors(daemon) < before + 30, "all is given back")
    eventually(lambda: daemon.ask("status")["sessions"] == 1, "only the neighbour's session is left")


def test_a_function_announced_with_a_descriptor(daemon: Daemon) -> None:
    code = cloudpickle.dumps(lambda: 1)
    with Raw(daemon).greet("session") as raw:
        raw.say(Kind.FUNCTION, Function(0, b"x" * 16, "f", None, len(code)))
        assert "fewer descriptors" in raw.refusal()["message"]
