"""Histories as drawings: a line for each client, an operation between its call and its return, time from left to right.

    a: |- w1 -|       |- r2 -|
    b:     |-- w2 -----?          nobody knows what came of it; it may still happen
    c:           |- w3 --!        nobody knows, and from its end on it does not happen any more

``wN`` writes N to a register, ``rN`` read N from it; ``+x`` puts x into a queue, ``-x`` took x out of it first.
"""

from __future__ import annotations

import re
from typing import Final

from tests.linearizability.checker import Model, Operation

COLUMN_NS: Final = 1_000_000
_SPAN: Final = re.compile(r"\|[ -]*(?P<kind>[wr+-])(?P<value>\w+)[ -]*(?P<end>[|?!])")

Asked = tuple[str, str]
"""What, and the value where one is given."""
Drawn = Operation[Asked, str]


def history(drawing: str) -> list[Drawn]:
    found = []
    for line in filter(str.strip, drawing.splitlines()):
        who, _, spans = line.partition(":")
        assert not _SPAN.sub("", spans).strip(), f"this cannot be read: {line}"
        found += [_operation(who.strip(), span) for span in _SPAN.finditer(line)]
    return found


def _operation(who: str, span: re.Match[str]) -> Drawn:
    kind, value, end = span["kind"], span["value"], span["end"]
    asked = (kind, value) if kind in "w+" else (kind, "")
    told = None if end in "?!" else "done" if kind in "w+" else value
    return Operation(who, asked, told, span.start() * COLUMN_NS, None if end == "?" else (span.end() - 1) * COLUMN_NS)


class Register(Model[str, Asked, str]):
    def start(self) -> str:
        return "0"

    def after(self, state: str, asked: Asked, told: str | None) -> str | None:
        kind, value = asked
        if kind == "w":
            return value
        return state if told in (None, state) else None


class Queue(Model[tuple[str, ...], Asked, str]):
    def start(self) -> tuple[str, ...]:
        return ()

    def after(self, state: tuple[str, ...], asked: Asked, told: str | None) -> tuple[str, ...] | None:
        kind, value = asked
        if kind == "+":
            return (*state, value)
        return state[1:] if state and told in (None, state[0]) else None
