"""One replicated name, as a single host would keep it: the rules of ``abid.core.cluster.facts``, in one screen.

Whoever claims a free name holds it, with an epoch above all that went before; to claim what one holds changes nothing.
Only its holder releases it. Who is refused is told by whom it is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from tests.linearizability.checker import Model

# What is asked.


@dataclass(frozen=True, slots=True)
class Claim:
    name: str
    owner: str

    def __str__(self) -> str:
        return f"{self.owner} claims {self.name}"


@dataclass(frozen=True, slots=True)
class Release:
    name: str
    owner: str

    def __str__(self) -> str:
        return f"{self.owner} releases {self.name}"


@dataclass(frozen=True, slots=True)
class Get:
    name: str

    def __str__(self) -> str:
        return f"who has {self.name}"


Asked = Claim | Release | Get

# What is told.


@dataclass(frozen=True, slots=True)
class Claimed:
    epoch: int

    def __str__(self) -> str:
        return f"claimed, epoch {self.epoch}"


@dataclass(frozen=True, slots=True)
class Released:
    def __str__(self) -> str:
        return "released"


@dataclass(frozen=True, slots=True)
class Held:
    """By somebody: the answer to a question, or the reason of a refusal."""

    owner: str

    def __str__(self) -> str:
        return f"held by {self.owner}"


@dataclass(frozen=True, slots=True)
class Nobody:
    def __str__(self) -> str:
        return "held by nobody"


Told = Claimed | Released | Held | Nobody


@dataclass(frozen=True, slots=True)
class Name:
    """``owner`` "": nobody. ``epoch`` is that of the last claim; where its answer was lost, one that it is above."""

    owner: str = ""
    epoch: int = 0
    is_known: bool = True

    def __str__(self) -> str:
        epoch = f"epoch {self.epoch}" if self.is_known else f"an epoch above {self.epoch}"
        return f"held by {self.owner}, {epoch}" if self.owner else f"free, last {epoch}"

    @property
    def holder(self) -> Told:
        return Held(self.owner) if self.owner else Nobody()


class NameModel(Model[Name, Asked, Told]):
    def start(self) -> Name:
        return Name()

    def after(self, state: Name, asked: Asked, told: Told | None) -> Name | None:
        match asked:
            case Claim():
                return _claimed(state, asked.owner, told)
            case Release():
                return _released(state, asked.owner, told)
            case Get():
                return state if told in (None, state.holder) else None
            case _:
                assert_never(asked)


def _claimed(state: Name, owner: str, told: Told | None) -> Name | None:
    if state.owner not in ("", owner):
        return state if told in (None, state.holder) else None
    if told is None:
        return state if state.owner else Name(owner, state.epoch, is_known=False)
    if not isinstance(told, Claimed):
        return None
    if state.owner and state.is_known:
        return state if told.epoch == state.epoch else None
    return Name(owner, told.epoch) if told.epoch > state.epoch else None


def _released(state: Name, owner: str, told: Told | None) -> Name | None:
    if state.owner != owner:
        return state if told in (None, state.holder) else None
    if told in (None, Released()):
        return Name("", state.epoch, state.is_known)
    return None


def part_of(asked: Asked) -> str:
    """Names have nothing to do with each other."""
    return asked.name
