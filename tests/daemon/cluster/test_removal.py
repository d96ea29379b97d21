"""By whose word this host is a member no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from abi.errors import AbiError
from abi.wire.peers import Refused
from abid.cluster.member import Member
from abid.cluster.refusal import Code, refused, said
from abid.cluster.removal import Removal
from abid.core.cluster.facts import Facts
from abid.core.raft.configuration import Configuration

US = "node5"
SAID = said(Refused(Code.REVOKED, "this host was removed from the cluster"))


def view(*voters: int, outgoing: tuple[int, ...] = (), facts: Facts | None = None) -> Removal:
    """Of host 5, where these vote."""
    configuration = Configuration(frozenset(voters), frozenset(outgoing), frozenset({4, 5, 6}))
    consensus = SimpleNamespace(facts=facts or Facts(), configuration=configuration)
    return Removal(
        cast("Member", SimpleNamespace(node=US, consensus=consensus, node_of=lambda number: f"node{number}"))
    )


def test_one_is_not_believed_and_a_majority_is() -> None:
    removal = view(1, 2, 3)
    assert removal.on_refused("node1", SAID) is None
    assert removal.on_refused("node1", SAID) is None, "it says so again, and is one still"
    why = removal.on_refused("node2", SAID)
    assert why is not None
    assert (why.code, why.message, bool(why.hint)) == (Code.REVOKED, "2 of 3 voters say so", True)


def test_who_does_not_vote_does_not_count() -> None:
    removal = view(1, 2, 3)
    assert [removal.on_refused(node, SAID) for node in ("node4", "node6", "stranger", "node3")] == [None] * 4
    assert removal.told_by == ["node3", "node4", "node6", "stranger"]


def test_our_own_vote_is_not_cast_against_us() -> None:
    removal = view(1, 2, 5)
    assert removal.on_refused("node1", SAID) is None
    assert removal.on_refused("node2", SAID) is not None
    assert view(5).on_refused("node1", SAID) is None


def test_while_the_voters_change_it_takes_both_majorities() -> None:
    removal = view(1, 2, 3, outgoing=(6,))
    assert [removal.on_refused(node, SAID) for node in ("node1", "node2", "node3")] == [None] * 3
    assert removal.on_refused("node6", SAID) is not None


def test_where_no_voters_are_known_nobody_is_believed() -> None:
    assert view().on_refused("node1", SAID) is None


def test_what_we_know_to_be_agreed_on_is_believed_from_anybody() -> None:
    removal = view(1, 2, 3, facts=Facts(revoked={US: 1}))
    why = removal.on_refused("node4", SAID)
    assert why is not None
    assert why.message == "the cluster has agreed on it"


def test_who_answers_us_again_or_is_no_member_any_more_does_not_count() -> None:
    removal = view(1, 2, 3)
    removal.on_refused("node1", SAID)
    removal.on_answered("node1")
    removal.on_refused("node2", SAID)
    removal.keep({"node1", "node3", US})
    assert removal.told_by == []
    assert removal.on_refused("node3", SAID) is None


@pytest.mark.parametrize(
    "error",
    [
        refused(Code.REVOKED, "node 1 was removed from the cluster"),
        said(Refused(Code.OTHER_CLUSTER, "each to its own")),
        AbiError("no", code=Code.REVOKED),
    ],
)
def test_that_we_refuse_somebody_says_nothing_of_us(error: AbiError) -> None:
    """Nor does any other reason of theirs."""
    removal = view(1)
    assert removal.on_refused("node1", error) is None
    assert removal.told_by == []


@pytest.mark.parametrize(
    ("voters", "outgoing", "dead", "is_refused"),
    [
        ({1, 2, 3}, set(), set(), True),
        ({1, 2, 3}, set(), {1}, False),
        ({3}, set(), set(), False),
        ({2}, {3}, set(), False),
        ({1, 2}, {1, 2, 3}, set(), True),
        ({2}, set(), set(), True),
        ({1, 2, 4}, set(), {1, 2}, True),
    ],
    ids=["one of three", "one of two that live", "the only one", "on its way out", "two go on", "no voter", "cut off"],
)
def test_a_voter_is_heard_for_as_long_as_the_others_need_it(
    voters: set[int], outgoing: set[int], dead: set[int], is_refused: bool
) -> None:
    """Host 3 was sent away. One that does not vote is refused whoever else lives."""
    configuration = Configuration(frozenset(voters), frozenset(outgoing))
    member = SimpleNamespace(
        consensus=SimpleNamespace(facts=Facts(revoked={"node3": 1}), configuration=configuration),
        known_as=lambda number: f"node{number}",
        is_alive=lambda number: number not in dead,
    )
    assert Member.is_revoked(cast("Member", member), "node3") is is_refused
    assert not Member.is_revoked(cast("Member", member), "node1")
