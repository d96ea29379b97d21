"""docs/cluster.md, which explains words: held to the words that there are."""

from __future__ import annotations

import re
from pathlib import Path

from abi import exits
from abid.cluster.refusal import Code

PAGE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Of the table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_each_reason_to_refuse_is_explained_once() -> None:
    explained = [word.strip("`") for word, *_ in rows("Whom a member refused")]
    assert sorted(explained) == sorted(code.value for code in Code)


def test_the_exit_codes_are_those_of_the_commands() -> None:
    told = {int(number): re.findall(r"`(\w+)`", codes) for number, codes, _ in rows("Exit codes")}
    assert {code: number for number, codes in told.items() for code in codes} == exits.BY_CODE
