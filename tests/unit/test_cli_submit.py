"""`abi submit`: the command runs elsewhere and looks as if it ran here."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from abi_cli.commands import submit
from abi_cli.main import main

ID = {"id": "abcdefghijklmnopqrstuvwxyz", "short": "abcdefgh"}
ENDED = {**ID, "name": "sh", "state": "done", "end": "error", "code": 7, "signal": None, "why": "exit code 7"}


def piece(stream: str, data: bytes) -> dict[str, Any]:
    return {"stream": stream, "data": base64.b64encode(data).decode(), "offset": 1}


@pytest.fixture
def daemon(scripted: Any) -> Any:
    """Takes any job, which then says hi and exits 7."""
    scripted.on("submit", {"result": ID})
    scripted.on("logs", piece("stdout", b"hi\n"), piece("stderr", b"\xfe"), {"result": ENDED})
    scripted.on("cancel", {"result": {"job": ENDED}})
    return scripted


def requests(daemon: Any) -> list[str]:
    return [request["op"] for request in daemon.requests]


def test_output_and_code_are_the_commands(daemon: Any, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["submit", "--", "sh", "-c", "echo hi; exit 7"]) == 7
    said = capsysbinary.readouterr()
    assert (said.out, said.err) == (b"hi\n", b"\xfe")
    submitted, logs = daemon.requests
    assert submitted["command"] == ["sh", "-c", "echo hi; exit 7"]
    assert (submitted["name"], submitted["cwd"]) == ("sh", os.getcwd())
    assert submitted["env"] == dict(os.environ)
    assert (logs["target"], logs["follow"]) == (ID["id"], True)


def test_every_option_reaches_the_daemon(daemon: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "submit", "--name", "n", "--cpus", "0.5", "--memory", "1G", "--env", "A=b=c", "--env", "PATH=/x", "--cwd",
        str(tmp_path), "--time-limit", "1m", "--priority", "high", "--resource", "license=2", "-d",
        "sleep", "--json", "5",
    ]  # fmt: skip
    assert main(words) == 0
    assert capsys.readouterr().out == "abcdefgh\n"
    (request,) = daemon.requests
    assert request["env"] == {**os.environ, "A": "b=c", "PATH": "/x"}
    del request["env"]
    assert request == {
        "id": 1, "op": "submit", "command": ["sleep", "--json", "5"], "name": "n", "cpus": 0.5, "memory": 1 << 30,
        "cwd": str(tmp_path), "time_limit_ms": 60_000, "priority": "high", "resources": {"license": 2.0},
    }  # fmt: skip


def test_json(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--json", "--", "x"]) == 7
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [ID, piece("stdout", b"hi\n"), piece("stderr", b"\xfe"), {"job": ENDED}]
    assert main(["submit", "--json", "-d", "--", "x"]) == 0
    assert json.loads(capsys.readouterr().out) == ID


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"end": "ok", "code": 0}, 0),
        ({"end": "error", "code": None, "signal": "SIGKILL"}, 137),
        ({"end": "timed_out", "signal": "SIGTERM", "error": "it ran longer than its 1 s"}, 4),
        ({"end": "cancelled"}, 130),
    ],
)
def test_other_ends(daemon: Any, end: dict[str, Any], code: int) -> None:
    daemon.on("logs", {"result": {**ENDED, **end}})
    assert main(["submit", "--", "x"]) == code


def test_an_end_that_is_not_the_commands_own_is_explained(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.on("logs", {"result": {**ENDED, "end": "lost", "code": None, "error": "the daemon\x1b ended"}})
    assert main(["submit", "--", "x"]) == 1
    assert capsys.readouterr().err == "abi: the daemon ended\n"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_first_interrupt_leaves_the_job_running(
    daemon: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "follow", interrupt)
    waited: list[float] = []
    monkeypatch.setattr(submit._Interrupts, "second", lambda _, within_s: waited.append(within_s))
    assert main(["submit", "--", "x"]) == 130
    said = capsys.readouterr().err
    assert "the job goes on" in said
    assert "abi logs -f abcdefgh" in said
    assert waited == [2.0]
    assert requests(daemon) == ["submit"]


def test_the_second_interrupt_cancels_it(
    daemon: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit, "follow", interrupt)
    monkeypatch.setattr(submit._Interrupts, "second", lambda _, within_s: True)
    assert main(["submit", "--", "x"]) == 130
    assert "cancelling abcdefgh" in capsys.readouterr().err
    assert requests(daemon) == ["submit", "cancel"]


def test_an_interrupt_before_the_answer_says_so(
    daemon: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("abi.control.Control.request", interrupt)
    assert main(["submit", "--", "x"]) == 130
    assert "abi jobs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [({"code": "busy", "message": "full", "retry_after_ms": 40}, 75), ({"code": "refused", "message": "no GPU"}, 1)],
)
def test_what_the_daemon_does_not_take(
    daemon: Any, error: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.on("submit", {"error": error})
    assert main(["submit", "--json", "--", "x"]) == code
    said = json.loads(capsys.readouterr().err)["error"]
    assert {**error, "hint": ""} == said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "no command"),
        (["--"], 2, "no command"),
        (["--durable", "--", "x"], 1, "durability is not there yet"),
        (["--cwd", "/does/not/exist", "--", "x"], 2, "/does/not/exist is no directory"),
        (["--env", "A", "--", "x"], 2, "NAME=VALUE"),
        (["--resource", "gpu", "--", "x"], 2, "'gpu' is not of the form NAME=AMOUNT"),
        (["--cpus", "-1", "--", "x"], 2, "cpus"),
        (["--priority", "urgent", "--", "x"], 2, "urgent"),
    ],
)
def test_what_is_refused_here(
    nowhere: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *words]) == code
    assert said in capsys.readouterr().err


def test_no_daemon(nowhere: str) -> None:
    assert main(["submit", "--", "x"]) == 69


def test_a_daemon_that_goes_away_meanwhile(daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.on("logs", piece("stdout", b"so far"), {"hang up": True})
    assert main(["submit", "--", "x"]) == 69
    assert "went away" in capsys.readouterr().err
