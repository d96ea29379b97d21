"""Members of another incarnation that are met: what is said of them, on either side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.wire.incarnations import FIRST, following, name
from abid.cluster import strays
from abid.cluster.certificates import Subject
from abid.cluster.strays import Strays

CLUSTER = "c1a57e5000000001"
NEWER, TWIN = following(FIRST, 7), following(FIRST, 8)


def view(incarnation: int, *met: tuple[str, int]) -> Strays:
    subject = Subject("0000000a", CLUSTER, incarnation)
    seen = Strays(cast(Any, SimpleNamespace(credentials=SimpleNamespace(subject=subject))))
    for node, theirs in met:
        seen.on_met(Subject(node, CLUSTER, theirs))
    return seen


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (FIRST, NEWER, ("newer", "on each host of this incarnation")),
        (NEWER, FIRST, ("older", "on each of those hosts")),
        (NEWER, TWIN, ("neither newer nor older", "keep one of the two")),
    ],
)
def test_each_side_says_which_is_newer_and_what_to_do(ours: int, theirs: int, words: tuple[str, str]) -> None:
    (note,) = view(ours, ("0000000b", theirs)).notes()
    assert note["code"] == "other_incarnation"
    assert words[0] in note["message"]
    assert all(name(each) in note["message"] for each in (ours, theirs))
    assert words[1] in note["hint"]
    assert "`abi cluster leave --force`, then `abi cluster join`" in note["hint"]


def test_those_of_one_incarnation_are_named_together_and_who_comes_back_is_not() -> None:
    seen = view(FIRST, ("0000000c", NEWER), ("0000000b", NEWER), ("0000000b", NEWER), ("0000000d", TWIN))
    assert [note["message"].partition(":")[0] for note in seen.notes()] == ["0000000b, 0000000c", "0000000d"]
    seen.on_connected("0000000d")
    assert [seen.has("0000000b"), seen.has("0000000d")] == [True, False]
    assert len(seen.notes()) == 1


def test_they_are_bounded() -> None:
    seen = view(FIRST, *((f"{number:08x}", NEWER) for number in range(3 * strays.NODES_MAX)))
    assert len(seen.notes()[0]["message"].split(", ")) <= strays.NODES_MAX + 3
