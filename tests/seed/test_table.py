"""docs/seed.md, which says where each row of the seed's page is seen: held to the tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "seed.md"
SUBJECTS = (
    "switched off", "Node registry", "Discovery by broadcast", "active nodes", "leaves the list", "serialize_task",
    "named error", "NodeUnreachable", "Circuit breaker", "One breaker for each peer", "remembered on disk", "DNS names",
    "one leader and one term", "higher term", "refuses cluster writes", "term, vote and log", "config show", "`port`",
    "`discovery_enabled`", "`broadcast_interval_ms`", "`connection_timeout_ms`", "`request_timeout_ms`",
    "`max_retries`", "`network list`", "`network register --host HOST`", "unknown node or a bad value", "`--json`",
)  # fmt: skip
"""Of the page's rows, those on running tasks left out."""


def rows(text: str) -> list[tuple[str, list[str]]]:
    """What is promised, and the tests that are named for it."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 2 and not cells[0].startswith(("---", "What the page")):
            found.append((cells[0], re.findall(r"`([^`]+)`", cells[1])))
    return found


def collected() -> set[str]:
    """The tests of this folder, as pytest finds them: by the names of files and functions."""
    return {
        f"{path.name}::{node.name}"
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def wrong(text: str) -> list[str]:
    said = [f"no test is named for {promise!r}" for promise, tests in rows(text) if not tests]
    named = {test for _, tests in rows(text) for test in tests}
    said += [f"there is no {test}" for test in sorted(named - collected())]
    promises = " ".join(promise for promise, _ in rows(text))
    return said + [f"no row is about {subject!r}" for subject in SUBJECTS if subject not in promises]


def test_each_row_has_a_test_that_there_is() -> None:
    assert wrong(PAGE.read_text()) == []


def test_each_file_of_this_folder_is_in_the_table() -> None:
    named = {test.partition("::")[0] for _, tests in rows(PAGE.read_text()) for test in tests}
    assert {path.name for path in Path(__file__).parent.glob("test_*.py")} - named == {Path(__file__).name}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("::test_port`", "::test_ports`", "there is no test_options.py::test_ports"),
        ("`test_options.py::test_port`", "", "no test is named for '… `port` changes what happens'"),
        ("Node registry", "Registry", "no row is about 'Node registry'"),
    ],
)
def test_what_is_wrong_with_the_table_is_seen(old: str, new: str, said: str) -> None:
    text = PAGE.read_text()
    assert old in text
    assert wrong(text.replace(old, new)) == [said]
