"""`abi bench` as a person calls it: its words, its one object, its exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BENCH = [sys.executable, "-m", "abi_cli.main", "bench"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *words], capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "--rounds 0: between 1 and 1000"),
        (["--only", "noop"], "the bench has no line 'noop'"),
        (["--against", "ppe,rya"], "no peer is called 'rya'"),
        (["--peer-python", "/nowhere/python"], "there is no such program"),
    ],
)
def test_wrong_words_are_named(words: list[str], said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_one_object_with_everything_in_it() -> None:
    """A real daemon is asked; no bound is judged here, for a machine that runs tests is busy."""
    done = run("--only", "status", "--rounds", "2", "--against", "none", "--json")
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    (measured,) = told["lines"]
    assert measured["problems"] == []
    assert [metric["key"] for metric in measured["metrics"]] == ["status_ms", "bare_ms", "over_bare_ms"]
    assert all(len(metric["figures"]["abi"]["rounds"]) == 2 for metric in measured["metrics"])
    assert told["gates"]["hold"] + told["gates"]["do_not"] == 1
    assert done.returncode == (1 if told["gates"]["do_not"] else 0)


def test_the_table_says_who_is_missing() -> None:
    done = run("--only", "chunked_map", "--rounds", "1", "--against", "dask", "--peer-python", "/bin/false")
    assert "dask: not installed in /bin/false: pip install distributed" in done.stdout
    assert "chunked_map" in done.stdout
    assert done.returncode == 0, done.stdout  # a target may be missed
