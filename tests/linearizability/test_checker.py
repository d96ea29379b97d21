"""The checker against histories that are known to be good or bad, and against trying all orders."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability.checker import Failure, Model, Operation, failures
from tests.linearizability.drawn import Queue, Register, history
from tests.linearizability.names import (
    Asked,
    Claim,
    Claimed,
    Get,
    Held,
    Name,
    NameModel,
    Nobody,
    Release,
    Released,
    Told,
    part_of,
)

GOOD = {
    "one after the other": """
        a: |- w1 -|       |- r2 -|
        b:          |w2|           |- r2 -|
    """,
    "reads around a write see the old and then the new": """
        a:    |------ w1 ------|
        b: |- r0 -|   |- r1 -|
    """,
    "of two writes at once either is last": """
        a: |--- w1 ---|
        b:   |- w2 -|     |- r1 -|
    """,
    "a write without an answer happened, and before it nothing is seen of it": """
        a: |- w1 ---?
        b: |r0|        |- r0 -|   |- r1 -|
    """,
    "a write without an answer never happened": """
        a: |- w1 ---?
        b:            |- r0 -| |- w2 -| |- r2 -|
    """,
    "a write without an answer happened long after": """
        a: |- w1 -?
        b:           |- w2 -| |- r2 -| |- r1 -|
    """,
    "a write without an answer happened before it was over": """
        a: |- w1 --------!
        b:  |- r0 -|        |- r1 -|
    """,
    "touching ends overlap": """
        a: |- w1 -|
        b:        |- r0 -|
    """,
}
BAD = {
    "a stale read": """
        a: |- w1 -|
        b:           |- r0 -|
    """,
    "a value that was seen is seen no more": """
        a: |------------ w1 ------------|
        b:    |- r1 -|
        c:              |- r0 -|
    """,
    "a value that nobody wrote": """
        a: |- w1 -|
        b: |- r2 -|
    """,
    "a read of what is written later": """
        a:           |- w1 -|
        b: |- r1 -|
    """,
    "a write without an answer happened twice": """
        a: |- w1 -?
        b:           |- r1 -| |- w2 -| |- r1 -|
    """,
    "a write without an answer happened after it was over": """
        a: |- w1 -!
        b:           |- w2 -| |- r2 -| |- r1 -|
    """,
    "a write without an answer happened after it was over, and before anybody looked": """
        a: |- w1 -!
        b:           |- w2 -|   |- r1 -|
    """,
    "two readers do not agree on the order of two writes": """
        a: |------------ w1 -----------|
        b: |------------ w2 -----------|
        c:   |r1|      |r2|
        d:       |r2|       |r1|
    """,
}
GOOD_QUEUES = {
    "puts at once come out in either order": """
        a: |-- +x --|        |- -y -|
        b:   |- +y -|                  |- -x -|
    """,
    "what is put is taken before that is answered": """
        a: |------ +x ------|
        b:    |-- -x --|
    """,
    "one that was taken without an answer": """
        a: |- +x -| |- +y -|
        b:                   |- -x -?
        c:                             |- -y -|
    """,
}
BAD_QUEUES = {
    "what was put first comes out last": """
        a: |- +x -| |- +y -|
        b:                   |- -y -| |- -x -|
    """,
    "one is taken twice": """
        a: |- +x -|
        b:          |- -x -|
        c:          |- -x -|
    """,
}


@pytest.mark.parametrize("drawing", GOOD.values(), ids=GOOD)
def test_a_register_may_say_this(drawing: str) -> None:
    assert not told_of(history(drawing), Register())


@pytest.mark.parametrize("drawing", BAD.values(), ids=BAD)
def test_no_register_says_this(drawing: str) -> None:
    assert told_of(history(drawing), Register())


@pytest.mark.parametrize("drawing", GOOD_QUEUES.values(), ids=GOOD_QUEUES)
def test_a_queue_may_say_this(drawing: str) -> None:
    assert not told_of(history(drawing), Queue())


@pytest.mark.parametrize("drawing", BAD_QUEUES.values(), ids=BAD_QUEUES)
def test_no_queue_says_this(drawing: str) -> None:
    assert told_of(history(drawing), Queue())


def told_of(operations: Sequence[Operation[Any, Any]], model: Model[Any, Any, Any]) -> list[Failure[Any, Any, Any]]:
    return list(failures(operations, model, lambda _: "it"))


def test_a_failure_is_told_in_words() -> None:
    [failure] = told_of(
        history("""
            a: |- w1 -| |---- w2 ----|              |- r1 -|
            b:             |- r2 -|       |- r1 -|
            c:                          |--- w7 ----------?
        """),
        Register(),
    )
    assert str(failure) == (
        "'it' has no order that explains this answer:\n"
        "      27.000 ..     34.000 ms  b: ('r', '') -> 1\n"
        "what was answered before has one, after which it is 2 or 7:\n"
        "       0.000 ..      7.000 ms  a: ('w', '1') -> done\n"
        "       9.000 ..     22.000 ms  a: ('w', '2') -> done\n"
        "      12.000 ..     19.000 ms  b: ('r', '') -> 2\n"
        "under way then, and not in that order:\n"
        "      25.000 ..          … ms  c: ('w', '7') -> ?"
    )


# Names.


def claim(who: str, told: Told | None, called: int, ended: int | None) -> Operation[Asked, Told]:
    return Operation(who, Claim("n", who), told, called, ended)


def release(who: str, told: Told | None, called: int, ended: int | None) -> Operation[Asked, Told]:
    return Operation(who, Release("n", who), told, called, ended)


def get(told: Told | None, called: int, ended: int | None) -> Operation[Asked, Told]:
    return Operation("reader", Get("n"), told, called, ended)


def names_failed(*operations: Operation[Asked, Told]) -> list[Failure[Name, Asked, Told]]:
    return list(failures(operations, NameModel(), part_of))


def test_a_name_as_it_should_be() -> None:
    assert not names_failed(
        get(Nobody(), 0, 1),
        claim("a", Claimed(3), 2, 3),
        claim("a", Claimed(3), 4, 5),
        claim("b", Held("a"), 4, 5),
        release("b", Held("a"), 6, 7),
        release("a", Released(), 8, 9),
        release("a", Nobody(), 10, 11),
        claim("b", Claimed(9), 12, 13),
        get(Held("b"), 14, 15),
    )


def test_a_claim_without_an_answer_has_an_epoch_all_the_same() -> None:
    before = claim("a", Claimed(3), 0, 1), release("a", Released(), 2, 3), claim("b", None, 4, None)
    assert not names_failed(*before, claim("b", Claimed(5), 5, 6), claim("b", Claimed(5), 7, 8))
    assert names_failed(*before, claim("b", Claimed(5), 5, 6), claim("b", Claimed(6), 7, 8))
    assert names_failed(*before, claim("b", Claimed(2), 5, 6))


@pytest.mark.parametrize(
    "broke",
    [
        get(Nobody(), 4, 5),
        get(Held("b"), 4, 5),
        claim("b", Claimed(4), 4, 5),
        claim("b", Held("c"), 4, 5),
        claim("a", Claimed(4), 4, 5),
        release("b", Released(), 4, 5),
        release("b", Nobody(), 4, 5),
        release("a", Nobody(), 4, 5),
    ],
    ids=lambda one: f"{one.asked}, {one.told}",
)
def test_what_is_not_so_of_a_name_that_is_held(broke: Operation[Asked, Told]) -> None:
    [failure] = names_failed(claim("a", Claimed(3), 0, 1), broke)
    assert failure.broke == broke
    assert failure.states == {Name("a", 3)}


def test_names_are_examined_apart() -> None:
    operations: list[Operation[Asked, Told]] = []
    for name, told in (("good", Held("a")), ("bad", Nobody()), ("worse", Held("b"))):
        operations.append(Operation("a", Claim(name, "a"), Claimed(1), 0, 1))
        operations.append(Operation("b", Get(name), told, 2, 3))
    assert [failure.part for failure in names_failed(*operations)] == ["bad", "worse"]


def played(lots: random.Random, names: int, clients: int, count: int, lost: float) -> list[Operation[Asked, Told]]:
    """What so many clients may see, each with one operation under way: it takes effect at a moment between the two."""
    states = {f"n{number}": Name() for number in range(names)}
    free_at = dict.fromkeys([f"c{number}" for number in range(clients)], 0)
    planned = []
    for _ in range(count):
        who = min(free_at, key=lambda one: free_at[one])
        called = free_at[who] + lots.randint(1, 20)
        effect = called + lots.randint(0, 50)
        free_at[who] = effect + lots.randint(0, 50)
        planned.append((effect, called, free_at[who], who, lots.choice(list(states)), lots.random()))
    found: list[Operation[Asked, Told]] = []
    for epoch, (_, called, ended, who, name, lot) in enumerate(sorted(planned), 1):
        asked: Asked = Get(name) if lot < 0.4 else Claim(name, who) if lot < 0.7 else Release(name, who)
        answers: list[Told] = [states[name].holder, Released(), Claimed(epoch), Claimed(states[name].epoch)]
        told = next(one for one in answers if NameModel().after(states[name], asked, one) is not None)
        after = NameModel().after(states[name], asked, told)
        assert after is not None
        states[name] = after
        is_lost = lots.random() < lost
        found.append(Operation(who, asked, None if is_lost else told, called, None if is_lost else ended))
    return found


@pytest.mark.parametrize("lost", [0.0, 0.05])
def test_thousands_of_operations_on_dozens_of_names(lost: float) -> None:
    operations = played(random.Random(7), names=48, clients=12, count=6000, lost=lost)
    assert not list(failures(operations, NameModel(), part_of))


def test_one_answer_among_thousands_that_cannot_be() -> None:
    operations = played(random.Random(8), names=24, clients=8, count=4000, lost=0.02)
    place, told = next(
        (place, one)
        for place, one in enumerate(operations)
        if place > 3000 and isinstance(one.asked, Get) and one.told is not None
    )
    operations[place] = Operation(told.who, told.asked, Held("nobody we know"), told.called, told.ended)
    [failure] = failures(operations, NameModel(), part_of)
    assert failure.broke is operations[place]


def test_what_was_tried_is_not_tried_again() -> None:
    """In 12! orders, but only 2**12 ways to have done some of them."""
    many = [Operation(f"c{number}", ("w", "1"), "done", 0, 10) for number in range(12)]
    [failure] = told_of([*many, Operation("r", ("r", ""), "2", 11, 12)], Register())
    assert failure.broke.who == "r"


# Against trying all orders.


def orders(
    operations: Sequence[Operation[Asked, Told]], optional: Collection[int] = ()
) -> Iterator[tuple[frozenset[int], Name]]:
    """Every way to do them one after the other: what was done, and the state after it."""
    may_miss = {*optional, *(number for number, one in enumerate(operations) if one.told is None)}
    for count in range(len(may_miss) + 1):
        for missed in itertools.combinations(sorted(may_miss), count):
            done = [number for number in range(len(operations)) if number not in missed]
            for order in itertools.permutations(done):
                state = end_of([operations[number] for number in order])
                if state is not None:
                    yield frozenset(done), state


def end_of(order: Sequence[Operation[Asked, Told]]) -> Name | None:
    """The state after these, in this order; None where they cannot have happened in it."""
    state: Name | None = NameModel().start()
    latest_call = -1
    for one in order:
        latest_call = max(latest_call, one.called)
        if (one.ended is not None and one.ended < latest_call) or state is None:
            return None
        state = NameModel().after(state, one.asked, one.told)
    return state


OWNERS = ("a", "b")
TOLD: list[Told | None] = [None, Claimed(1), Claimed(2), Released(), Held("a"), Held("b"), Nobody()]


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation[Asked, Told]]:
    """Up to five operations that mostly happened so; what is told of some is then another thing, or not known."""
    count = draw(st.integers(1, 5))
    moments = draw(st.permutations(range(3 * count)))
    found: list[Operation[Asked, Told]] = []
    state, epoch = Name(), 0
    for number in sorted(range(count), key=lambda number: sorted(moments[3 * number : 3 * number + 3])[1]):
        called, _, ended = sorted(moments[3 * number : 3 * number + 3])
        owner = draw(st.sampled_from(OWNERS))
        choice: list[Asked] = [Get("n"), Claim("n", owner), Release("n", owner)]
        asked = draw(st.sampled_from(choice))
        answers = [state.holder, Released(), Claimed(state.epoch), Claimed(epoch + 1)]
        told = next(one for one in answers if NameModel().after(state, asked, one) is not None)
        epoch = max(epoch, told.epoch) if isinstance(told, Claimed) else epoch
        state = NameModel().after(state, asked, told) or state
        shown = draw(st.sampled_from([told, told, told, None, None, *TOLD]))
        is_open = shown is None and draw(st.booleans())
        found.append(Operation(owner, asked, shown, called, None if is_open else ended))
    return found


@settings(max_examples=150, deadline=None)
@given(small_histories())
def test_it_finds_what_trying_all_orders_finds(operations: list[Operation[Asked, Told]]) -> None:
    found = names_failed(*operations)
    assert bool(found) == (next(orders(operations), None) is None)
    if found:
        check_told(operations, found[0])


def check_told(operations: Sequence[Operation[Asked, Told]], failure: Failure[Name, Asked, Told]) -> None:
    """It broke where it says: up to there, what was under way may have happened with its answer, or not yet."""
    broke = failure.broke
    until = broke.ended
    assert until is not None
    begun = [one for one in operations if one.called < until and one is not broke]
    answered = {number for number, one in enumerate(begun) if one.ended is not None and one.ended < until}
    before = list(orders(begun, set(range(len(begun))) - answered))
    assert {state for _, state in before} == failure.states
    assert end_of(failure.order) in failure.states
    assert {*failure.order, *failure.open} <= set(begun)
    may_miss = set(range(len(begun))) - answered
    assert not list(orders([*begun, broke], may_miss))
