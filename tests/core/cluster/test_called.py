"""Which member a person means."""

from __future__ import annotations

import pytest

from abi.errors import AbiError
from abid.core.cluster.called import member_called
from abid.core.cluster.facts import Member

MEMBERS = [
    Member(number, node, name, (), 0)
    for number, (node, name) in enumerate(
        [("a3f10001", "one"), ("a3f10002", "two"), ("beef0003", "a3f10001"), ("cafe0004", "twin"), ("feed0005", "twin")]
    )
]


@pytest.mark.parametrize(
    ("word", "node"),
    [("two", "a3f10002"), ("beef", "beef0003"), ("beef0", "beef0003"), ("cafe0004", "cafe0004"), (" one ", "a3f10001")],
)
def test_a_whole_name_and_enough_of_an_id(word: str, node: str) -> None:
    assert member_called(word, MEMBERS).node == node


def test_an_id_goes_before_a_name_that_looks_like_it() -> None:
    assert member_called("a3f10001", MEMBERS).node == "a3f10001"


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("", "usage", "an empty word"),
        ("  ", "usage", "an empty word"),
        ("b", "usage", "too short"),
        ("bee", "usage", "too short"),
        ("a3f1", "ambiguous", "a3f10001, a3f10002"),
        ("twin", "ambiguous", "cafe0004, feed0005"),
        ("on", "not_found", "no member is called 'on'"),
        ("beef1", "not_found", "no member is called 'beef1'"),
    ],
)
def test_what_names_nobody_or_too_many(word: str, code: str, said: str) -> None:
    with pytest.raises(AbiError, match=said) as caught:
        member_called(word, MEMBERS)
    assert caught.value.code == code
    assert caught.value.hint
