"""Every command but submit, against a scripted daemon."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abi_cli.main import COMMANDS, main

JOB = {
    "id": "abcdefghijklmnopqrstuvwxyz", "short": "abcdefgh", "name": "train\x1b[2J", "state": "done", "end": "error",
    "code": 7, "signal": None, "command": ["sh", "-c", "exit 7"], "cwd": "/tmp", "cpus": 1.0, "submitted_at": 1.0,
    "started_at": 2.0, "ended_at": 5.5, "pid": 12, "attempt": 1, "why": "exit code 7",
}  # fmt: skip
STATUS = {
    "pid": 99, "version": "0.1.0", "node": "n0de", "host": "here", "uptime_s": 61.0, "state": "ready", "sessions": 0,
    "workers": {"total": 2, "busy": 1, "idle": 1}, "tasks": {"waiting": 0, "queued": 3, "running": 1, "finished": 9},
    "jobs": {"running": 1}, "resources": {"cpus": {"total": 2.0, "free": 1.0}, "memory": {"total": 1024, "free": 512}},
    "loop_lag_ms_p99": 0.25, "runtime_dir": "/r", "state_dir": "/s", "config_file": "",
}  # fmt: skip


def piece(stream: str, data: bytes) -> dict[str, Any]:
    return {"stream": stream, "data": base64.b64encode(data).decode(), "offset": 1}


def asked(scripted: Any) -> dict[str, Any]:
    """The one request, without its number."""
    (request,) = scripted.requests
    return {name: value for name, value in request.items() if name != "id"}


def test_status(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("status", {"result": STATUS})
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    for part in ("0.1.0, ready, up 1 min 1 s", "here (node n0de)", "3 queued", "1 of 2 free", "512 B of 1.0 KiB free"):
        assert part in said
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_shows_custom_resources_like_the_others(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    custom = {"license": {"total": 2.0, "free": 2.0}, "seat\x1b": {"total": 1.0, "free": 0.5}}
    scripted.on("status", {"result": {**STATUS, "resources": {**STATUS["resources"], "custom": custom}}})
    assert main(["status"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["license", "2", "of", "2", "free"] in lines
    assert ["seat", "0.5", "of", "1", "free"] in lines
    assert not any("custom" in line for line in lines)


def test_jobs(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("jobs", {"result": {"jobs": [JOB]}})
    assert main(["jobs", "--all"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "NAME", "STATE", "CPUS", "TIME", "COMMAND"]
    assert row.split() == ["abcdefgh", "train[2J", "error", "7", "1", "3.5", "s", "sh", "-c", "'exit", "7'"]
    assert asked(scripted) == {"op": "jobs", "all": True}
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"jobs": [JOB]}


def test_no_jobs(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("jobs", {"result": {"jobs": []}})
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out == ""


def test_show_hides_control_characters(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("show", {"result": {**JOB, "env": {"API_KEY": "***", "LANG": "C\x1b"}, "news": "of\x1blater"}})
    assert main(["show", "abc"]) == 0
    said = capsys.readouterr().out
    assert "env" not in said
    assert "oflater" in said
    assert main(["show", "--env", "abc"]) == 0
    said = capsys.readouterr().out
    scripted.requests.pop()
    assert asked(scripted) == {"op": "show", "target": "abc"}
    assert "\x1b" not in said
    for part in ("env API_KEY  ***", "env LANG", "sh -c 'exit 7'", "error 7", "oflater"):
        assert part in said
    assert main(["show", "abc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env"] == {"API_KEY": "***", "LANG": "C\x1b"}


def test_logs_are_the_bytes_that_were_written(scripted: Any, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    scripted.on(
        "logs", piece("stdout", b"\xff\x1b[1m"), piece("stderr", b"oh\r"), piece("stdout", b"\n"), {"result": JOB}
    )
    assert main(["logs", "-f", "last"]) == 0
    said = capsysbinary.readouterr()
    assert (said.out, said.err) == (b"\xff\x1b[1m\n", b"oh\r")
    assert asked(scripted) == {
        "op": "logs",
        "target": "last",
        "follow": True,
        "offset": 0,
        "streams": ["stdout", "stderr"],
    }


def test_logs_as_json_end_with_the_job(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("logs", piece("stdout", b"x"), {"result": JOB})
    assert main(["logs", "--json", "--stream", "stdout", "abc"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [piece("stdout", b"x"), {"job": JOB}]
    assert asked(scripted)["streams"] == ["stdout"]


def test_wait_gives_the_first_code_that_is_not_0(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fine = {**JOB, "end": "ok", "code": 0, "short": "fine"}
    scripted.on("wait", {"job": JOB}, {"job": fine}, {"result": {"jobs": [fine, JOB]}})
    assert main(["wait", "--timeout", "5s", "a", "b"]) == 7
    assert capsys.readouterr().out.splitlines() == ["abcdefgh  error 7  train[2J", "fine  ok  train[2J"]
    assert asked(scripted) == {"op": "wait", "ids": ["a", "b"], "timeout_ms": 5000}


def test_wait_that_times_out(scripted: Any) -> None:
    scripted.on("wait", {"error": {"code": "timed_out", "message": "1 of 1 jobs have not ended"}})
    assert main(["wait", "a"]) == 4


def test_cancel(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("cancel", {"result": {"job": {**JOB, "end": None, "state": "running"}, "had_ended": False}})
    assert main(["cancel", "--force", "a"]) == 0
    assert asked(scripted) == {"op": "cancel", "target": "a", "force": True}
    assert capsys.readouterr().out == "cancelling abcdefgh\n"
    scripted.on("cancel", {"result": {"job": JOB, "had_ended": True}})
    assert main(["cancel", "a"]) == 0
    assert capsys.readouterr().out == "abcdefgh had ended already: error 7\n"
    assert main(["cancel", "--json", "a"]) == 0
    assert json.loads(capsys.readouterr().out) == {"job": JOB}


def test_config_shows_what_the_daemon_has(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.on("config", {"result": {"values": {"jobs.keep_max": {"value": 3, "origin": "flag"}}}})
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["jobs.keep_max", "3", "flag"]


def test_config_without_a_daemon(nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "abid.toml"
    file.write_text("[jobs]\nkeep_max = 3\n")
    assert main(["config", "--json", "-c", str(file)]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert values["jobs.keep_max"] == {"value": 3, "origin": f"{file}:2"}
    assert values["queue.tasks_max"]["origin"] == "default"
    assert main(["config", "check", "-c", str(file)]) == 0
    file.write_text("[jobs]\nkeep = 3\n")
    capsys.readouterr()
    assert main(["config", "check", "-c", str(file)]) == 78
    assert "did you mean 'jobs.keep_max'?" in capsys.readouterr().err


def test_config_check_tells_every_mistake(nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "abid.toml"
    file.write_text("[jobs]\nkeep = 3\nlog_bytes_max = 1\n")
    assert main(["config", "check", "-c", str(file)]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"abi: {file}:2: there is no option 'jobs.keep'; did you mean 'jobs.keep_max'?",
        f"abi: {file}:3: jobs.log_bytes_max is 1, the least is 4096",
    ]
    assert main(["config", "check", "--json", "-c", str(file)]) == 78
    errors = [json.loads(line)["error"] for line in capsys.readouterr().err.splitlines()]
    assert [error["code"] for error in errors] == ["bad_config", "bad_config"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("abi 0.1.0 (protocol 1.0")
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "0.1.0"


def test_no_daemon_is_69_and_says_how_to_start_one(nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 69
    assert "abid start -d" in capsys.readouterr().err
    assert main(["status", "--json"]) == 69
    error = json.loads(capsys.readouterr().err)["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert error["code"] == "unreachable"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "did you mean `abi status`?"),
        (["start"], "did you mean `abid start`?"),
        (["jobs", "--al"], "--al"),
        (["show"], "ID"),
        (["wait", "--timeout", "soon", "x"], "no duration"),
    ],
)
def test_wrong_usage_is_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in COMMANDS:
        assert name in overview
    for name in set(COMMANDS) - {"bench"}:
        assert main([name, "--help"]) == 0
        assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["logs", "submit"])
def test_help_says_how_output_is_told_in_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "with data in base64" in " ".join(capsys.readouterr().out.split())


def test_a_closed_pipe_ends_quietly(scripted: Any) -> None:
    scripted.on("jobs", {"result": {"jobs": [JOB] * 5000}})
    run = "import sys; from abi_cli.main import main; sys.exit(main(['jobs']))"
    with subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_output_that_cannot_be_written_is_a_failure(scripted: Any) -> None:
    scripted.on("status", {"result": STATUS})
    run = "import sys; from abi_cli.main import main; sys.exit(main(['status']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", run], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "abi: standard output: No space left on device\n")


def test_a_stdout_that_was_never_open(scripted: Any) -> None:
    scripted.on("logs", piece("stdout", b"x"), {"result": JOB})
    run = "import sys; from abi_cli.main import main; sys.exit(main(['logs', 'x']))"
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, run], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_status_imports_only_what_is_light(scripted: Any) -> None:
    scripted.on("status", {"result": STATUS})
    run = (
        "import sys; before = set(sys.modules)\n"
        "from abi_cli.main import main\n"
        "main(['status'])\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    heavy = {
        "typing",
        "dataclasses",
        "inspect",
        "pathlib",
        "asyncio",
        "subprocess",
        "shutil",
        "msgspec",
        "difflib",
        "rich",
    }
    assert set(done.stderr.split()) & heavy == set()
