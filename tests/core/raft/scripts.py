"""Reads the scenario scripts of etcd's raft, where the environment says that they lie (``ABI_RAFT_SCRIPTS``).

A script is a list of steps: a command with ``key=value`` words, lines of input, a line of dashes, what is expected. An
empty line ends the expectation, unless the dashes stand twice: then twice dashes end it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = os.environ.get("ABI_RAFT_SCRIPTS", "")
needs_scripts = pytest.mark.skipif(
    not FOLDER, reason="the scenario scripts are not here: ABI_RAFT_SCRIPTS names their folder"
)
DASHES = "----"
_WORD = re.compile(r"([\w-]+)(?:=(\((.*?)\)|\S+))?")


@dataclass(frozen=True)
class Step:
    """``words`` are those behind the command; lists in parentheses are split at commas and blanks."""

    place: str
    command: str
    words: dict[str, list[str]]
    input: list[str]
    expected: list[str]


def files(folder: str) -> list[Path]:
    """All scripts below this folder of the scripts; none where ABI_RAFT_SCRIPTS is not set. Raises FileNotFoundError
    where it names a folder without them."""
    found = sorted((Path(FOLDER) / folder / "testdata").glob("*.txt")) if FOLDER else []
    if FOLDER and not found:
        raise FileNotFoundError(f"ABI_RAFT_SCRIPTS is {FOLDER}, and {folder}/testdata there has no scripts")
    return found


def steps(path: Path) -> Iterator[Step]:
    lines = path.read_text().splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        place = f"{path.name}:{at + 1}"
        command, *given = _until(lines, at, DASHES)
        given = [line for line in given if not line.startswith("#")]
        at += 1 + len(_until(lines, at + 1, DASHES)) + 1
        if at < len(lines) and lines[at] == DASHES:
            at += 1
            expected = _until(lines, at, DASHES)
            at += len(expected) + 2
        else:
            expected = _until(lines, at, "")
            at += len(expected) + 1
        name, _, rest = command.partition(" ")
        yield Step(place, name, _words(rest), given, expected)


def _until(lines: list[str], begin: int, end: str) -> list[str]:
    found = []
    for line in lines[begin:]:
        if line.strip() == end:
            break
        found.append(line)
    return found


def _words(text: str) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for match in _WORD.finditer(text):
        name, value, inner = match.groups()
        if value is None:
            words[name] = []
        elif inner is None and not value.startswith("("):
            words[name] = [value]
        else:
            words[name] = re.split(r"[,\s]+", inner.strip()) if inner and inner.strip() else []
    return words
