"""Names that change hands in all weathers: what clients of every host saw could have happened one thing at a time.

Clients ask all daemons at once, about the same few names, while daemons are killed, cut off and stopped. What they were
told is examined by Wing and Gong's search (``tests.linearizability.checker``).
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.linearizability import weather
from tests.linearizability.clients import Away, Line, asking
from tests.linearizability.history import Note, history, wrong
from tests.linearizability.names import Get
from tests.linearizability.weather import WEATHERS, Weather
from tests.torture.figures import Figure, seen
from tests.torture.fleet import Fleet
from tests.torture.scenario import Options, Scenario

NAMES: Final = 4
"""In one round; fewer than clients, so that they are in each other's way."""
CLIENTS_EACH: Final = 2
WEATHERS_EACH: Final = 3
CALM_S: Final = 0.1
"""Before and after each: what was done in it is seen."""
SHORT_S: Final = (0.05, 0.5)
LONG_S: Final = (0.7, 1.8)
"""Below an election timeout, and above it. How long something lasts is drawn from one of the two."""


@dataclass
class Seen:
    """In all rounds so far."""

    operations: int = 0
    commands: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    """By what was said instead of an answer."""
    open: int = 0
    """Commands of which nobody knows by when they have had their effect."""
    wrong: list[str] = field(default_factory=list)
    slowest_check_s: float = 0.0

    def add(self, notes: Sequence[Note], *, may_leave: bool) -> None:
        began = time.monotonic()
        self.wrong += map(str, wrong(notes, may_leave=may_leave))
        self.slowest_check_s = max(self.slowest_check_s, time.monotonic() - began)
        self.operations += len(notes)
        self.commands += sum(note.is_command for note in notes)
        self.unknown.update(note.why for note in notes if not note.is_known)
        operations = history(notes, may_leave=may_leave)
        self.open += sum(one.ended is None for one, note in zip(operations, notes, strict=True) if note.is_command)


def round_of(
    fleet: Fleet, weathers: Sequence[tuple[Weather, float]], lots: random.Random, title: str = "n"
) -> list[Note]:
    """What clients saw in these weathers, each of which lasts so many seconds; and at last, whom each host names."""
    names = [f"{title}-{number}" for number in range(NAMES)]
    paths = weather.sockets(fleet)
    with asking(paths, names, CLIENTS_EACH, lots.randrange(1 << 30), may_leave=somebody_leaves(weathers)) as notes:
        time.sleep(CALM_S)
        for one, hold_s in weathers:
            one(fleet, lots, hold_s)
            fleet.await_leader()
            time.sleep(CALM_S)
    for host, path in enumerate(paths):
        line = Line(f"c{host}", host, path, notes)
        with contextlib.suppress(Away):
            for name in names:
                line.ask(Get(name))
        line.close()
    return notes


def somebody_leaves(weathers: Sequence[tuple[Weather, float]]) -> bool:
    return any(one is weather.member_leaves for one, _ in weathers)


def names(options: Options) -> list[Figure]:
    lots = random.Random(options.seed)
    found = Seen()
    with weather.cluster() as fleet:
        _, first_term = fleet.await_leader()
        for number in range(options.times):
            drawn = [
                (lots.choice(WEATHERS), lots.uniform(*lots.choice((SHORT_S, LONG_S)))) for _ in range(WEATHERS_EACH)
            ]
            notes = round_of(fleet, drawn, lots, f"round-{number}")
            found.add(notes, may_leave=somebody_leaves(drawn))
            words = ", ".join(f"{one.__name__} {hold_s:.2f} s" for one, hold_s in drawn)
            options.tell(f"{number + 1} of {options.times}: {words}: {found.operations} operations in all")
            for failure in found.wrong:
                options.tell(failure)
            if found.wrong:
                break
        _, last_term = fleet.await_leader()
    assert found.operations > options.times, "nothing was asked: nothing was examined"
    return [
        Figure("names whose history has no order", len(found.wrong), "", 0),
        seen("operations that were examined", found.operations, ""),
        seen("claims and releases among them", found.commands, ""),
        *(seen(f"without an outcome: {why}", count, "") for why, count in sorted(found.unknown.items())),
        seen("claims and releases that stay open to the end", found.open, ""),
        seen("terms", last_term - first_term, ""),
        seen("the slowest examination of a round", found.slowest_check_s, "s"),
    ]


SCENARIOS: Final = (Scenario("names", "names change hands in all weathers: every history has an order", names, 100),)
