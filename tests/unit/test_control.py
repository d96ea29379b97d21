"""The control client against a daemon that says what the test wants."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abi import control, transport
from abi.errors import (
    AbiError,
    Busy,
    DaemonUnreachable,
    Denied,
    NotFound,
    ProtocolError,
    VersionMismatch,
)
from abi.version import __version__
from abi.wire.schema import Kind


def test_numbers_are_those_of_the_schema() -> None:
    ours = {name: getattr(control, name) for name in ("HELLO", "WELCOME", "REFUSED", "REQUEST", "RESPONSE", "EVENT")}
    assert ours == {name: Kind[name].value for name in ours}


def test_hello_says_who_we_are(scripted: Any) -> None:
    with control.connect(5) as connection:
        assert connection.welcome == scripted.welcome
        assert connection.path == scripted.path
    (hello,) = scripted.hellos
    assert len(hello.pop("trace")) == 32
    assert hello == {
        "protocol": [1, 0],
        "features": [],
        "role": "control",
        "version": __version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "uid": os.getuid(),
        "pid": os.getpid(),
        "namespace": "default",
        "environment": "",
    }


def test_requests_and_results(scripted: Any) -> None:
    scripted.on("show", {"result": {"name": "x"}})
    scripted.on("ping", {"dropped": "event"}, {"result": {}})
    with control.connect(5) as connection:
        assert connection.request("show", target="abc") == {"name": "x"}
        assert connection.request("ping") == {}
    assert scripted.requests == [{"id": 1, "op": "show", "target": "abc"}, {"id": 2, "op": "ping"}]


def test_events_come_before_the_result(scripted: Any) -> None:
    scripted.on("logs", {"n": 1}, {"n": 2}, {"result": {"end": "ok"}})
    with control.connect(5) as connection:
        assert list(connection.stream("logs", job="a")) == [{"n": 1}, {"n": 2}]
        assert connection.result == {"end": "ok"}


def test_a_stream_given_up_does_not_disturb_the_next_request(scripted: Any) -> None:
    scripted.on("logs", {"n": 1}, {"n": 2}, {"result": {"end": "ok"}})
    scripted.on("ping", {"result": {"pong": True}})
    with control.connect(5) as connection:
        assert next(connection.stream("logs")) == {"n": 1}
        assert connection.request("ping") == {"pong": True}


def test_names_that_are_no_text_pass_unharmed(scripted: Any) -> None:
    scripted.scripts["echo"] = lambda request: [{"result": {"said": request["word"]}}]
    word = os.fsdecode(b"caf\xe9 \xff")
    with control.connect(5) as connection:
        assert connection.request("echo", word=word) == {"said": word}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"code": "not_found", "message": "no such job", "hint": "abi jobs"}, NotFound),
        ({"code": "busy", "message": "full", "retry_after_ms": 70}, Busy),
        ({"code": "denied", "message": "no"}, Denied),
        ({"code": "internal", "message": "oh"}, AbiError),
    ],
)
def test_errors_are_raised_as_what_they_are(scripted: Any, answer: dict[str, object], kind: type[AbiError]) -> None:
    scripted.on("show", {"error": answer})
    with control.connect(5) as connection, pytest.raises(kind) as caught:
        connection.request("show")
    assert (caught.value.code, caught.value.message) == (answer["code"], answer["message"])
    assert getattr(caught.value, "retry_after_ms", 70) == 70


def test_a_refused_hello(scripted: Any) -> None:
    scripted.refusal = {"code": "version", "message": "too new", "hint": "upgrade"}
    with pytest.raises(VersionMismatch, match="too new"):
        control.connect(5)


def test_another_major_protocol(scripted: Any) -> None:
    scripted.welcome["protocol"] = [2, 0]
    with pytest.raises(VersionMismatch, match="protocol"):
        control.connect(5)


def frame(payload: bytes, kind: int = 2, codec: int = 2, descriptors: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<IBBH", len(payload) if length is None else length, kind, codec, descriptors) + payload


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frame(b"{}", kind=9),
        frame(b"{}", codec=1),
        frame(b"{}", descriptors=1),
        frame(b"{}", length=0xFFFFFFFF),
        frame(b"[]"),
        frame(b"{"),
        frame(b"\xff"),
    ],
)
def test_what_is_no_protocol_is_said_to_be_none(scripted: Any, raw: bytes) -> None:
    scripted.raw = raw
    with pytest.raises(ProtocolError):
        control.connect(5)


@pytest.mark.parametrize("raw", [b"", b"\x02\x00", frame(b"{}", length=10)])
def test_a_daemon_that_hangs_up(scripted: Any, raw: bytes) -> None:
    scripted.raw = raw
    with pytest.raises(DaemonUnreachable, match="went away"):
        control.connect(5)


def test_a_daemon_that_says_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with transport.listen(path), pytest.raises(DaemonUnreachable, match="does not answer"):
        control.connect(0.01, [path])


def test_nobody_there(nowhere: str) -> None:
    with pytest.raises(DaemonUnreachable, match=f"no daemon answers at {nowhere}/abid.sock") as caught:
        control.connect(1)
    assert "abid start -d" in caught.value.hint


def test_the_first_that_answers_is_taken(scripted: Any, tmp_path: Path) -> None:
    stale = str(tmp_path / "stale.sock")
    transport.listen(stale).close()
    candidates = [str(tmp_path / "none" / "a.sock"), stale, scripted.path]
    with control.connect(5, candidates) as connection:
        assert connection.path == scripted.path


def test_a_socket_in_a_directory_that_is_not_ours_is_not_trusted(scripted: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(Denied, match="symbolic link"):
        control.connect(5, [str(tmp_path / "link" / "abid.sock")])
    assert scripted.hellos == []


def test_another_users_daemon_is_not_trusted(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "peer_credentials", lambda sock: (1, os.getuid() + 1, 1))
    with pytest.raises(Denied, match="runs as uid"):
        control.connect(5)
    assert scripted.hellos == []


def test_only_what_is_light_is_imported() -> None:
    code = (
        "import sys; before = set(sys.modules); import abi.control; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {
        "typing",
        "dataclasses",
        "inspect",
        "pathlib",
        "asyncio",
        "subprocess",
        "tempfile",
        "msgspec",
        "contextlib",
    }
    assert loaded & heavy == set()
