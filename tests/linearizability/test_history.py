"""By when what was given up has had its effect."""

from __future__ import annotations

from tests.linearizability.checker import Operation
from tests.linearizability.history import LOST, Note, history, wrong
from tests.linearizability.names import Asked, Claim, Claimed, Get, Held, Nobody, Release, Released, Told

OWN: Asked = Claim("n", "a")


def note(
    called: int, asked: Asked = OWN, told: Told | None = None, *, why: str = "", host: int = 0, life: int = 1
) -> Note:
    """Of an operation that takes one moment."""
    return Note(Operation("a", asked, told, called, called + 1), host, life, why)


GIVEN_UP = note(0, Release("n", "a"), why="unavailable")
UNANSWERED = note(0, Release("n", "a"), why=LOST)


def ends(*notes: Note) -> list[int | None]:
    return [operation.ended for operation in history(notes)]


def test_what_was_answered_ended_then() -> None:
    assert ends(note(0, told=Claimed(1)), note(5, told=Held("b"))) == [1, 6]


def test_what_a_daemon_gave_up_ends_with_its_next_answer() -> None:
    assert ends(GIVEN_UP, note(9, told=Claimed(1)), note(5, told=Held("b"))) == [6, 10, 6]
    assert ends(GIVEN_UP) == [None]
    assert ends(GIVEN_UP, note(5, why="unavailable")) == [None, None], "that is no answer"
    assert ends(GIVEN_UP, note(5, Get("n"), Nobody())) == [None, 6], "a look has no serial"
    assert ends(GIVEN_UP, note(5, told=Claimed(1), host=1)) == [None, 6], "nor has another host's"
    assert ends(GIVEN_UP, note(0, told=Claimed(1))) == [None, 1], "which was asked for at the same time"


def test_what_a_client_gave_up_ends_with_the_daemon() -> None:
    assert ends(UNANSWERED, note(5, told=Claimed(1))) == [None, 6]
    assert ends(UNANSWERED, note(5, told=Claimed(1)), note(7, told=Claimed(1), life=2)) == [8, 6, 8]


def test_of_a_host_that_may_have_left_nothing_is_known() -> None:
    assert history([GIVEN_UP, note(5, told=Held("b"))], may_leave=True)[0].ended is None


def test_what_was_given_up_and_comes_to_pass_later_is_wrong() -> None:
    before = [note(-5, told=Claimed(1)), GIVEN_UP, note(5, told=Claimed(1)), note(7, Get("n"), Held("a"))]
    assert not wrong(before)
    [failure] = wrong([*before, note(9, Get("n"), Nobody())])
    assert (failure.broke.asked, failure.broke.called) == (Get("n"), 9)
    before[1] = UNANSWERED
    assert not wrong([*before, note(9, Get("n"), Nobody())])
    assert not wrong([before[0], GIVEN_UP, note(5, told=Claimed(2)), note(7, Release("n", "a"), Released())])
