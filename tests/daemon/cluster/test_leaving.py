"""Leaving by force: an agreement if there can be one, and a word to those who are there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError
from abid.cluster import leaving, showing
from abid.cluster.asking import NoLeader
from abid.cluster.leaving import Gone
from abid.cluster.member import Member
from abid.core.cluster.facts import Result


class Leaver:
    """A member that is connected with two others; ``command`` is what asking the cluster comes to."""

    number = 3

    def __init__(self, command: Any, *, connected: bool = True) -> None:
        self.told: list[tuple[str, str]] = []
        self.asking = SimpleNamespace(command=command)
        nodes = ("one", "two") if connected else ()
        self.peers = SimpleNamespace(connected={node: SimpleNamespace(node=node) for node in nodes})
        self.requests = SimpleNamespace(ask=self._ask)

    async def _ask(self, peer: Any, verb: str, body: Any, timeout_s: float) -> None:
        self.told.append((peer.node, verb))
        raise AbiError("an older release does not know that")

    async def wait(self, condition: Any, timeout_s: float) -> bool:
        return True

    def leave(self) -> bool:
        return asyncio.run(leaving.by_force(cast(Member, self)))


async def agrees(kind: Any, **words: Any) -> Result:
    return Result(value="three")


async def is_lost(kind: Any, **words: Any) -> Result:
    raise NoLeader("nobody leads")


async def refuses(kind: Any, **words: Any) -> Result:
    return Result("last", "the last member cannot leave")


async def never(kind: Any, **words: Any) -> Result:
    await asyncio.Event().wait()
    raise AssertionError


def test_whoever_can_agree_is_asked_first() -> None:
    leaver = Leaver(agrees)
    assert leaver.leave() is True
    assert leaver.told == []


@pytest.mark.parametrize("command", [is_lost, refuses, never])
def test_if_they_cannot_they_are_told(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "FORCED_S", 0.05)
    leaver = Leaver(command)
    assert leaver.leave() is False
    assert leaver.told == [("one", leaving.GONE), ("two", leaving.GONE)]


def test_where_nobody_is_connected_nobody_is_waited_for() -> None:
    assert Leaver(never, connected=False).leave() is False


def state(health: str, *, gone: bool = False, is_stray: bool = False) -> str:
    """Of another member, as it is shown."""
    member = SimpleNamespace(
        strays=SimpleNamespace(has=lambda node: is_stray), health=SimpleNamespace(state_of=lambda number: health),
        gone={"two"} if gone else set(),
    )  # fmt: skip
    return showing.state_of(cast(Member, member), cast(Any, SimpleNamespace(node="two", number=2)))


def test_three_ways_to_be_gone_have_three_names() -> None:
    assert [state("alive"), state("suspect"), state("dead")] == ["alive", "suspect", "dead"]
    assert state("left") == "stopped", "its daemon was stopped, and may be started"
    assert state("left", gone=True) == "left"
    assert state("left", is_stray=True) == "other_incarnation"
    assert state("alive", gone=True) == "alive", "whatever it said before"


def test_who_comes_back_or_is_no_member_any_more_is_not_gone() -> None:
    gone = Gone()
    for node in ("one", "two", "three"):
        asyncio.run(gone.on_told(cast(Any, SimpleNamespace(node=node)), {}))
    gone.on_connected("one")
    gone.keep({"one", "two"})
    assert [node in gone for node in ("one", "two", "three")] == [False, True, False]
