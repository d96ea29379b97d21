"""What others remember of a member, message by message."""

from __future__ import annotations

from abid.core.raft.messages import Kind, Message
from abid.core.raft.recollection import Recollection, Standing


def told(*messages: Message) -> Recollection:
    """What node 1 remembers when it heard these."""
    recollection = Recollection(1)
    for message in messages:
        recollection.note(message)
    return recollection


def test_of_a_stranger_nothing_is_missing() -> None:
    assert told().missing(2, Standing(0, 0, 0)) is None


def test_a_term_is_remembered() -> None:
    known = told(Message(Kind.HEARTBEAT_ANSWER, 2, 1, term=4))
    assert known.missing(2, Standing(4, 0, 0)) is None
    assert known.missing(2, Standing(5, 0, 0)) is None
    assert known.missing(2, Standing(3, 0, 9)) == "it was in term 4 and now stands in term 3"


def test_a_vote_for_us_is_remembered_in_its_term() -> None:
    known = told(Message(Kind.VOTE_ANSWER, 2, 1, term=4))
    assert known.missing(2, Standing(4, 1, 0)) is None
    assert known.missing(2, Standing(4, 0, 0)) == "it voted for node 1 in term 4 and has no such vote now"
    assert known.missing(2, Standing(4, 3, 0)) is not None
    assert known.missing(2, Standing(5, 3, 0)) is None


def test_entries_are_remembered_in_their_term() -> None:
    known = told(
        Message(Kind.APPEND_ANSWER, 2, 1, term=4, index=9),
        Message(Kind.APPEND_ANSWER, 2, 1, term=4, index=7),  # an older one, come late
        Message(Kind.APPEND_ANSWER, 2, 1, term=3, index=12),  # of an older term, whose entries may have gone since
    )
    assert known.missing(2, Standing(4, 0, 9)) is None
    assert known.missing(2, Standing(4, 0, 8)) == "it had entries up to 9 and now ends at 8"
    assert known.missing(2, Standing(5, 0, 8)) is None, "a later leader may have cut them off"


def test_no_promise_is_made_by_refusing_or_by_speaking_of_a_term_to_come() -> None:
    known = told(
        Message(Kind.PRE_VOTE, 2, 1, term=9),
        Message(Kind.PRE_VOTE_ANSWER, 2, 1, term=9),
        Message(Kind.VOTE_ANSWER, 2, 1, term=4, refused=True),
        Message(Kind.APPEND_ANSWER, 2, 1, term=4, index=8, refused=True),
        Message(Kind.PROPOSE, 2, 1),
    )
    assert known.missing(2, Standing(4, 0, 0)) is None
    assert known.missing(2, Standing(3, 0, 0)) is not None


def test_who_is_forgotten_is_a_stranger() -> None:
    known = told(Message(Kind.APPEND_ANSWER, 2, 1, term=4, index=9))
    known.forget(2)
    assert known.missing(2, Standing(0, 0, 0)) is None
