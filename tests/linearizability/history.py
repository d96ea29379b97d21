"""What clients asked about names and were told, as it becomes a history that can be checked.

An answer that never came, or that says that nobody knows, leaves open whether it came to pass, and when. Not for ever,
though: a host's requests take effect in the order of their serials, or not at all (``abid.cluster.asking``). So what
was given up has had its effect, or never will, by the time that the same host is told of something which it certainly
asked for later:

1. The daemon itself gave it up: it has had its serial then, and what is asked of this daemon afterwards has a higher.
2. The daemon was killed: serials of its next life are above all of the one before.

What a client alone gave up may lie in a stopped daemon's socket, and come to pass after all that is asked meanwhile.
Nor does this hold of a host that leaves the cluster and joins again: its serials are those of somebody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.linearizability.checker import Failure, Operation, failures
from tests.linearizability.names import Asked, Get, Name, NameModel, Told, part_of

LOST: Final = "unreachable"
"""The daemon went away, or did not answer: the only code that nobody needs to have said."""


@dataclass(frozen=True, slots=True)
class Note:
    """``life``: the pid of the daemon that was asked. ``why``: the code of what was said instead of an answer."""

    operation: Operation[Asked, Told]
    host: int
    life: int
    why: str = ""

    @property
    def is_known(self) -> bool:
        return self.operation.told is not None

    @property
    def is_command(self) -> bool:
        return not isinstance(self.operation.asked, Get)


def history(notes: Iterable[Note], *, may_leave: bool = False) -> list[Operation[Asked, Told]]:
    """With an end for what was given up, where there is one. ``may_leave``: hosts left the cluster meanwhile."""
    notes = list(notes)
    answered: dict[int, list[Note]] = {}
    for note in notes:
        if note.is_known and note.is_command and not may_leave:
            answered.setdefault(note.host, []).append(note)
    return [note.operation if note.is_known else _ended(note, answered.get(note.host, ())) for note in notes]


def _ended(lost: Note, answered: Sequence[Note]) -> Operation[Asked, Told]:
    given_up = lost.operation.ended
    assert given_up is not None
    ends = [
        later.operation.ended
        for later in answered
        if later.operation.called > given_up
        and later.operation.ended is not None
        and (lost.why != LOST or later.life != lost.life)
    ]
    return dataclasses.replace(lost.operation, ended=min(ends, default=None))


def wrong(notes: Iterable[Note], *, may_leave: bool = False) -> list[Failure[Name, Asked, Told]]:
    """One for each name whose history no single host could have had."""
    return list(failures(history(notes, may_leave=may_leave), NameModel(), part_of))
