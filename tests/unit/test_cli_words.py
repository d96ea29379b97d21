"""Quantities as people write them, secrets, exit codes, and text that a terminal must not obey."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from abi import exits, masking
from abi.errors import (
    AbiError,
    Busy,
    ConfigError,
    DaemonUnreachable,
    Denied,
    GetTimeoutError,
    NetworkDisabled,
    NodeUnreachable,
    NotFound,
    Timeout,
    UsageError,
)
from abi_cli import quantities
from abi_cli.main import main
from abi_cli.output import job, text


@pytest.mark.parametrize(
    ("written", "ms"),
    [("90", 90_000), ("1.5", 1500), ("250ms", 250), ("5m", 300_000), ("1h30m", 5_400_000), ("2 d", 172_800_000)],
)
def test_durations(written: str, ms: int) -> None:
    assert quantities.duration_ms(written) == ms


@pytest.mark.parametrize("written", ["", "soon", "-1", "0", "5x", "1h and 2m", "nan", "inf"])
def test_no_durations(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        quantities.duration_ms(written)


@pytest.mark.parametrize(
    ("written", "count"),
    [("4096", 4096), ("1k", 1024), ("4GiB", 4 << 30), ("4g", 4 << 30), ("4GB", 4 * 10**9), ("1.5M", 3 << 19)],
)
def test_sizes(written: str, count: int) -> None:
    assert quantities.size_bytes(written) == count


def test_no_sizes_amounts_and_pairs() -> None:
    for written in ("", "-1", "G", "1X"):
        with pytest.raises(argparse.ArgumentTypeError):
            quantities.size_bytes(written)
    for written in ("nan", "-1", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            quantities.amount(written)
    for written in ("A", "=b"):
        with pytest.raises(argparse.ArgumentTypeError):
            quantities.pair(written)
    assert quantities.pair("A=b=c") == ("A", "b=c")
    assert quantities.pair("A=") == ("A", "")


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DB_PASSWORD", "api_key", "SSH_KEY", "MY_PWD"]
)
def test_secrets_by_name(name: str) -> None:
    assert masking.masked(name, "x") == "***"


def test_what_is_no_secret_is_shown() -> None:
    shown = {"PWD": "/here", "PATH": "/bin", "KEYBOARD": "us", "AUTHOR": "me", "TERM": "xterm", "MONKEY": "yes"}
    assert masking.masked_environment(shown) == shown
    assert masking.masked("URL", "https://me:hunter2@host/x") == "https://me:***@host/x"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AbiError("x"), 1), (UsageError("x"), 2), (NotFound("x"), 3), (GetTimeoutError("x"), 4),
        (DaemonUnreachable("x"), 69), (Busy("x"), 75), (Denied("x"), 77), (ConfigError("x"), 78),
        (NodeUnreachable("x"), 69), (AbiError("x", code="unavailable"), 69), (Timeout("x"), 4),
        (AbiError("x", code="out_of_cluster"), 69),
        (AbiError("x", code="unsure"), 2), (AbiError("x", code="wrong_token"), 77), (NetworkDisabled("x"), 78),
        (AbiError("x", code="not_member"), 1), (AbiError("x", code="is_member"), 1),
    ],
)  # fmt: skip
def test_exit_codes_of_errors(error: AbiError, code: int) -> None:
    assert exits.of_error(error) == code


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({"end": None}, 0),
        ({"end": "ok", "code": 0}, 0),
        ({"end": "ok", "code": 0, "discarded_bytes": 1}, 74),
        ({"end": "error", "code": 7, "discarded_bytes": 1}, 7),
        ({"end": "error", "code": 7}, 7),
        ({"end": "error", "code": None, "signal": "SIGKILL"}, 137),
        ({"end": "crashed", "signal": "SIGSEGV"}, 139),
        ({"end": "crashed", "signal": "signal 35"}, 163),
        ({"end": "cancelled", "signal": "SIGTERM"}, 130),
        ({"end": "timed_out", "signal": "SIGTERM"}, 4),
        ({"end": "lost"}, 1),
        ({"end": "refused"}, 1),
    ],
)
def test_exit_codes_of_jobs(ended: dict[str, Any], code: int) -> None:
    assert exits.of_job(ended) == code


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["submit", "--nmae", "x", "--", "true"], "did you mean `--name`? `abi submit --help` shows what it takes"),
        (["submit", "--cpsu=2", "true"], "did you mean `--cpus`? `abi submit --help` shows what it takes"),
        (["cluster", "token", "--use", "2"], "did you mean `--uses`? `abi cluster --help` shows what it takes"),
        (["submit", "--xyzzy", "true"], "`abi submit --help` shows what it takes"),
    ],
)
def test_a_slip_in_an_option_is_told_what_was_meant(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].strip() == hint


def test_control_characters_are_taken_out() -> None:
    assert text.clean("a\x1b[31mred\x07\nb\tc\u202egnp\x9b") == "a[31mred b cgnp"
    assert text.clean("plain é ü 漢") == "plain é ü 漢"


def test_tables_line_up() -> None:
    assert text.table(("A", "LONG"), [("wide cell", 1), ("x", 22)]) == "A          LONG\nwide cell  1\nx          22"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 1 s"), (3 * 3600 + 120, "3 h 2 min"), (90_000, "1 d 1 h")],
)
def test_time_spans(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


def test_counts_of_bytes() -> None:
    assert [text.size(n) for n in (0, 1023, 1024, 3 << 29, 5 << 60)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 GiB",
        "5120.0 PiB",
    ]


def test_a_job_in_words() -> None:
    assert job.outcome({"state": "running", "end": None}) == "running"
    assert job.outcome({"end": "error", "code": 7}) == "error 7"
    assert job.outcome({"end": "crashed", "signal": "SIGKILL", "code": None}) == "crashed SIGKILL"
    assert job.outcome({"end": "timed_out"}) == "timed_out"
