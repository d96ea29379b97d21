"""Whose answer was lost asks to be let in again: it is the same member, and nobody else comes in by what it had."""

from __future__ import annotations

import msgspec
import pytest

from abid.core.cluster import commands
from abid.core.cluster.facts import RECORD_BYTES, TEXT_BYTES, Facts, Member, Result
from tests.core.cluster.test_facts import DIGEST, Asker, create

TICKET, OTHER = b"t" * 32, b"o" * 32


@pytest.fixture
def asker() -> Asker:
    asker = Asker(Facts())
    asker.ask(commands.Found, cluster="c1", incarnation=1, number=1, node="aa", name="one", addresses=("10.0.0.1:1",))
    return asker


def admit(
    asker: Asker, node: str, ticket: bytes, digest: bytes = DIGEST, addresses: tuple[str, ...] = (), token: str = "t"
) -> Result:
    return asker.ask(
        commands.AdmitOnce, token=token, digest=digest, node=node, name="n", addresses=addresses, ticket=ticket
    )


@pytest.mark.parametrize("uses", [1, 3])
def test_the_same_ticket_is_the_same_member_and_takes_no_use(asker: Asker, uses: int) -> None:
    create(asker, uses=uses)
    facts = asker.facts
    first = admit(asker, "bb", TICKET, addresses=("10.0.0.2:1",))
    held = facts.held_bytes
    assert first == Result(value=2)
    asker.at_ms = 10**9  # the token's time is over, too
    again = admit(asker, "bb", TICKET, addresses=("10.0.0.2:2",))
    assert (again, list(facts.members), facts.next_number) == (first, [1, 2], 3)
    assert facts.members[2].addresses == ("10.0.0.2:2",), "it listens elsewhere by now"
    assert facts.held_bytes == held
    assert {name: token.uses for name, token in facts.tokens.items()} == ({"t": 2} if uses == 3 else {})


def test_a_token_that_is_used_up_opens_nothing_for_anybody_else(asker: Asker) -> None:
    create(asker)
    admit(asker, "bb", TICKET)
    asker.ask(commands.Admit, token="t", digest=DIGEST, node="bb", name="n", addresses=())
    before = asker.facts.members.copy()
    for node, ticket in (("bb", OTHER), ("cc", TICKET), ("cc", OTHER), ("aa", TICKET), ("aa", b""), ("bb", b"")):
        assert admit(asker, node, ticket).refused == "wrong_token"
    assert asker.ask(commands.Admit, token="t", digest=DIGEST, node="bb", name="n", addresses=()).refused
    assert asker.facts.members == before


def test_who_is_no_member_any_more_or_goes_on_as_another_has_no_ticket(asker: Asker) -> None:
    create(asker, uses=1)
    admit(asker, "bb", TICKET)
    asker.ask(commands.Readmit, number=2)
    assert admit(asker, "bb", TICKET).refused == "wrong_token"
    create(asker, uses=2)
    admit(asker, "cc", TICKET)
    admit(asker, "dd", TICKET)
    cc, dd = (asker.facts.of_node(node) for node in ("cc", "dd"))
    assert cc is not None
    assert dd is not None
    asker.ask(commands.Remove, number=cc.number, revoke=False)
    asker.ask(commands.Remove, number=dd.number, revoke=True)
    assert [admit(asker, node, TICKET).refused for node in ("cc", "dd")] == ["wrong_token", "revoked"]


def test_with_another_token_it_takes_the_place_of_its_old_entry(asker: Asker) -> None:
    create(asker)
    admit(asker, "bb", TICKET)
    create(asker, "new")
    assert admit(asker, "bb", OTHER, token="new").value == 3
    assert list(asker.facts.members) == [1, 3]
    assert asker.facts.past == {2: "bb"}


def test_what_was_in_a_log_or_a_snapshot_before_is_read_as_it_was(asker: Asker) -> None:
    old = msgspec.msgpack.encode(["admit", "t", DIGEST, "bb", "n", [], 1, 50, 1_000])
    create(asker)
    assert asker.facts.apply(commands.decode(old)).value == 2
    written = msgspec.msgpack.decode(asker.facts.encoded())
    for member in written["members"].values():
        del member["ticket"]
    assert Facts.decoded(msgspec.msgpack.encode(written)) == asker.facts


def test_a_ticket_is_counted_and_shown_to_nobody(asker: Asker) -> None:
    empty = asker.facts.held_bytes
    create(asker)
    admit(asker, "bb", TICKET)
    assert "ticket" not in str(asker.facts.shown())
    asker.ask(commands.Remove, number=2, revoke=False)
    assert asker.facts.held_bytes == empty
    large = Member(2**32 - 1, "b" * 8, "n" * 200, ("a" * 200,) * 12, 2**50, TICKET)
    texts = (large.node, large.name, *large.addresses, large.ticket)
    room = RECORD_BYTES + sum(TEXT_BYTES + len(text) for text in texts)
    assert len(msgspec.msgpack.encode({large.number: large})) <= room
