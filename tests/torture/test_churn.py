"""What churn calls right, against made-up clusters: each thing that may be wrong is found."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from tests.torture.churn import Need, Town, flat, why_not_right, why_wrong_voters
from tests.torture.fleet import Fleet

ALIVE, DEAD = {"a", "b", "c", "d"}, {"e"}


def told(**wrong: Any) -> dict[str, dict[str, Any]]:
    """What four that live say; ``wrong`` are the words of one of them."""
    nodes = [{"id": node, "state": "alive" if node in ALIVE else "dead"} for node in sorted(ALIVE | DEAD)]
    words = {"joined": True, "leader": "a", "term": 3, "voters": ["a", "b", "c"], "nodes": nodes}
    return {node: words | (wrong if node == "c" else {}) for node in ALIVE}


def test_it_is_right_when_all_agree_on_what_is_so() -> None:
    assert why_not_right(told(), ALIVE, DEAD) == ""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"joined": False}, "in no cluster"),
        ({"leader": None}, "knows no leader"),
        ({"leader": "b"}, "do not say the same"),
        ({"term": 4}, "do not say the same"),
        ({"voters": ["a", "b", "d"]}, "do not say the same"),
        ({"nodes": [{"id": "a", "state": "alive"}]}, "c says"),
        ({"nodes": [{"id": node, "state": "alive"} for node in "abcde"]}, "are dead"),
    ],
)
def test_whoever_says_something_else_is_found(wrong: dict[str, Any], why: str) -> None:
    assert why in why_not_right(told(**wrong), ALIVE, DEAD)


@pytest.mark.parametrize(
    ("voters", "alive", "dead", "why"),
    [
        ("abc", "abcd", "e", ""),
        ("a", "ab", "", ""),
        ("abcde", "abcdefg", "", ""),
        ("abcde", "abcd", "efg", ""),  # five should, and four live: they do, and one dead keeps its place
        ("abe", "abcd", "e", "vote and are dead"),
        ("ab", "abcd", "e", "2 vote, not 3"),
        ("abcd", "abcd", "e", "4 vote, not 3"),
        ("abcdefg", "abcdefg", "", "7 vote, not 5"),
        ("abz", "abcd", "", "are no members"),
        ("abcef", "abcd", "efg", "only"),
    ],
)
def test_wrong_voters_are_found(voters: str, alive: str, dead: str, why: str) -> None:
    found = why_wrong_voters(set(voters), set(alive), set(dead))
    assert why in found
    assert bool(why) == bool(found)


def test_what_grows_is_found() -> None:
    before = {1: Need(7, 50_000_000, 30), 2: Need(8, 50_000_000, 30)}
    assert not any(figure.fails for figure in flat(before, before | {2: Need(8, 57_000_000, 30)}))
    for wrong in (Need(8, 57_200_000, 30), Need(8, 50_000_000, 31)):
        assert [figure.fails for figure in flat(before, before | {2: wrong})].count(True) == 1
    with pytest.raises(AssertionError, match="another process"):
        flat(before, before | {2: Need(9, 50_000_000, 30)})


class NoFleet:
    """Of so many hosts, of which none is there."""

    def __init__(self, count: int) -> None:
        self.nodes = [str(number) for number in range(count)]

    def __len__(self) -> int:
        return len(self.nodes)


def test_nobody_goes_without_whom_the_others_could_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand steps of a town in which only who is where is counted."""
    town = Town(cast(Fleet, NoFleet(20)), random.Random(5), print, {0, 1, 2})
    moves = {
        "join": (town.out, town.alive), "leave": (town.alive, town.out), "send away": (town.alive, town.out),
        "die": (town.alive, town.dead), "come back": (town.dead, town.alive), "bury": (town.dead, town.out),
    }  # fmt: skip
    done = set[str]()
    sizes = set[int]()

    def do(what: str, host: int) -> None:
        source, target = moves[what]
        source.remove(host)
        target.add(host)
        done.add(what)

    monkeypatch.setattr(town, "do", do)
    for _ in range(10_000):
        town.step()
        sizes.add(len(town.alive))
        assert {1, 2} <= town.alive
        assert len(town.alive) >= 3 or not town.dead
        assert len(town.alive) + 1 >= len(town.dead), "of five that vote three live"
    assert done == set(moves)
    assert sizes == set(range(2, 21))
