"""The part of YAML that `configs/alerts.yml` is written in, read strictly: what is outside of it raises ValueError.

Blocks of `key: value` and `- ` items, two spaces a level; comments on lines of their own; a value is plain text or
stands in single quotes. So there is nothing in the file that two readers of YAML could understand differently.
"""

from __future__ import annotations

import re
from typing import Any

KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):(?: (.+))?")
NOT_PLAIN = re.compile(r"""^[-?:,\[\]{}#&*!|>'"%@`]|: | #|:$""")


def read(text: str) -> Any:
    """The object that a text stands for."""
    lines = [
        (number, len(line) - len(line.lstrip(" ")), line.strip(" "))
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    value, rest = _block(lines, 0)
    if rest:
        raise ValueError(f"line {rest[0][0]}: not indented like what is before it")
    return value


Lines = list[tuple[int, int, str]]


def _block(lines: Lines, indent: int) -> tuple[Any, Lines]:
    return _items(lines, indent) if lines[0][2].startswith("- ") else _mapping(lines, indent)


def _items(lines: Lines, indent: int) -> tuple[list[Any], Lines]:
    items: list[Any] = []
    while lines and lines[0][1] == indent and lines[0][2].startswith("- "):
        number, _, text = lines[0]
        item, lines = _mapping([(number, indent + 2, text[2:]), *lines[1:]], indent + 2)
        items.append(item)
    return items, lines


def _mapping(lines: Lines, indent: int) -> tuple[dict[str, Any], Lines]:
    found: dict[str, Any] = {}
    while lines and lines[0][1] == indent and not lines[0][2].startswith("- "):
        number, _, text = lines[0]
        key = KEY.fullmatch(text)
        if key is None or key[1] in found:
            raise ValueError(f"line {number}: {text!r} is no new key")
        lines = lines[1:]
        if key[2] is not None:
            found[key[1]] = _scalar(number, key[2])
        elif lines and lines[0][1] == indent + 2:
            found[key[1]], lines = _block(lines, indent + 2)
        else:
            raise ValueError(f"line {number}: {key[1]} has no value")
    if not found:
        raise ValueError(f"line {lines[0][0]}: not indented like what is before it")
    return found, lines


def _scalar(number: int, text: str) -> str:
    if quoted := re.fullmatch(r"'((?:[^']|'')*)'", text):
        return quoted[1].replace("''", "'")
    if NOT_PLAIN.search(text):
        raise ValueError(f"line {number}: {text!r} must be quoted")
    return text
