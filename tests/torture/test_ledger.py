"""The ledger believes what can be true, and tells what cannot: each wrong history is planted once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from abi.errors import AbiError, DaemonUnreachable
from tests.torture.ledger import Ledger, Said

Answer = dict[str, Any] | AbiError
Histories = dict[str, tuple[list[str], list[Answer]]]
"""What is asked, and how it is answered."""
TAKEN = AbiError("another holds it", code="taken")
UNKNOWN = AbiError("nobody holds it", code="unknown")
LOST = DaemonUnreachable("it went away")


def epoch(number: int) -> Answer:
    return {"epoch": number}


def owner(name: str) -> Answer:
    return {"owner": name}


def told(*answers: Answer) -> Ledger:
    """One that is answered so, whatever it asks."""
    left = iter(answers)

    def ask(_host: int, _verb: str, **_words: Any) -> dict[str, Any]:
        answer = next(left)
        if isinstance(answer, AbiError):
            raise answer
        return answer

    return Ledger(ask)


def play(ledger: Ledger, asked: Iterable[str]) -> list[Said]:
    """``claim a``, ``release a`` and ``look``, all about one name."""
    said = []
    for words in asked:
        verb, who = words.split()[0], words.split()[1:]
        ask = getattr(ledger, verb)
        said.append(ask(0, "name", *who))
    return said


RIGHT: Histories = {
    "claimed, seen, taken, released": (
        ["claim a", "look", "claim b", "release b", "release a", "look", "release a"],
        [epoch(1), owner("a"), TAKEN, TAKEN, {}, UNKNOWN, UNKNOWN],
    ),
    "claimed again by its owner, in the same epoch": (["claim a", "claim a"], [epoch(1), epoch(1)]),
    "a claim without an answer was done": (["claim a", "look", "look"], [LOST, owner("a"), owner("a")]),
    "it was not": (["claim a", "look", "claim b"], [LOST, UNKNOWN, epoch(1)]),
    "it is done later": (["claim a", "look", "look"], [LOST, UNKNOWN, owner("a")]),
    "a release without an answer is done later": (
        ["claim a", "release a", "look", "look"],
        [epoch(1), LOST, owner("a"), UNKNOWN],
    ),
    "both without an answer": (
        ["claim a", "release a", "claim b", "release b", "look"],
        [LOST, LOST, epoch(2), {}, owner("a")],
    ),
}

WRONG: Histories = {
    "an acknowledged claim is gone": (["claim a", "look"], [epoch(1), UNKNOWN]),
    "a stale read": (["claim a", "release a", "claim b", "look"], [epoch(1), {}, epoch(2), owner("a")]),
    "held by who never asked": (["claim a", "look"], [epoch(1), owner("b")]),
    "given to two": (["claim a", "claim b"], [epoch(1), epoch(2)]),
    "taken, and it is free": (["claim a"], [TAKEN]),
    "taken from its owner": (["claim a", "claim a"], [epoch(1), TAKEN]),
    "an acknowledged release is undone": (["claim a", "release a", "look"], [epoch(1), {}, owner("a")]),
    "released by another": (["claim a", "release b"], [epoch(1), {}]),
    "its owner may not release it": (["claim a", "release a"], [epoch(1), TAKEN]),
    "released, and unknown": (["claim a", "release a"], [epoch(1), UNKNOWN]),
    "an open claim seen, and gone again": (["claim a", "look", "look"], [LOST, owner("a"), UNKNOWN]),
    "one claim in two epochs": (["claim a", "claim a"], [epoch(1), epoch(2)]),
    "an epoch that was": (["claim a", "release a", "claim b"], [epoch(7), {}, epoch(6)]),
    "one epoch for two claims": (["claim a", "release a", "claim b"], [epoch(7), {}, epoch(7)]),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_can_be_true_is_believed(case: str) -> None:
    asked, answers = RIGHT[case]
    ledger = told(*answers)
    play(ledger, asked)
    assert ledger.wrong == []


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_true_is_told(case: str) -> None:
    asked, answers = WRONG[case]
    ledger = told(*answers)
    play(ledger, asked)
    assert ledger.wrong
    assert all("host 0" in words and "name" in words for words in ledger.wrong)


def test_two_leaders_that_give_out_one_epoch_are_seen_across_names() -> None:
    ledger = told(epoch(5), epoch(5))
    ledger.claim(0, "one", "a")
    ledger.claim(1, "other", "b")
    assert "epoch 5" in ledger.wrong[0]


def test_what_was_said_is_counted() -> None:
    ledger = told(epoch(1), TAKEN, LOST, UNKNOWN, {}, LOST)
    said = play(ledger, ["claim a", "claim b", "claim b", "release c", "release a", "look"])
    assert said == [Said.DONE, Said.REFUSED, Said.NOTHING, Said.REFUSED, Said.DONE, Said.NOTHING]
    assert ledger.acknowledged == 2


def test_about_one_name_one_thing_is_asked_at_a_time() -> None:
    asked, go = threading.Event(), threading.Event()

    def ask(_host: int, _verb: str, **_words: Any) -> dict[str, Any]:
        asked.set()
        assert go.wait(10)
        return {"owner": "a"}

    ledger = Ledger(ask)
    thread = threading.Thread(target=ledger.look, args=(0, "name"))
    thread.start()
    try:
        assert asked.wait(10)
        with pytest.raises(AssertionError, match="two requests at a time"):
            ledger.look(0, "name")
    finally:
        go.set()
        thread.join(10)
