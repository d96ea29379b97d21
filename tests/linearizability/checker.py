"""Whether a history is linearizable: whether each operation could have taken effect at one moment of its own, between
its call and its return, so that every answer is what a single copy would have given.

The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993, section 4), with the memory that Lowe
added ("Testing for linearizability", 2017, section 5):

1. Calls and returns stand in a doubly linked list, in the order in which they happened.
2. From the head on, a call whose operation the model can do now is done: it leaves the list together with its return,
   and the walk begins at the head again.
3. At a return, its operation should have been done before: so the last one that was done is put back, and the walk
   goes on behind its call.
4. Where the same operations were done before and led to the same state, nothing new can follow.

Operations on different things are examined apart: a history is linearizable if its part for each thing is (Herlihy and
Wing, "Linearizability", 1990, theorem 1; Horn and Kroening, "Faster linearizability checking via P-compositionality",
2015).

An operation whose outcome nobody knows may be done like any other, with whatever outcome, or never. It is passed over
at its return, which is the end of the history where no earlier one is known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

A = TypeVar("A")
"""What is asked."""
T = TypeVar("T")
"""What is told."""
S = TypeVar("S", bound=Hashable)
"""A state."""

ORDER_SHOWN: Final = 12
"""Operations told of an order that is good up to somewhere: what broke stands near its end."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[A, T]):
    """``told`` is None where nobody knows what came of it: then it takes effect until ``ended`` (None: ever), or never.
    Times are nanoseconds of one clock."""

    who: str
    asked: A
    told: T | None
    called: int
    ended: int | None

    def __post_init__(self) -> None:
        assert self.told is None or self.ended is not None, "who was told something was told it at some time"
        assert self.ended is None or self.called <= self.ended

    def within(self, begin: int) -> str:
        """In words, its times in ms after ``begin``."""
        until = "…" if self.ended is None else f"{(self.ended - begin) / 1e6:.3f}"
        told = "?" if self.told is None else self.told
        return f"{(self.called - begin) / 1e6:10.3f} .. {until:>10} ms  {self.who}: {self.asked} -> {told}"


class Model(ABC, Generic[S, A, T]):
    """What is examined, as it would be if there were only one of it, and one client."""

    @abstractmethod
    def start(self) -> S: ...

    @abstractmethod
    def after(self, state: S, asked: A, told: T | None) -> S | None:
        """The state that follows; None where nobody could be told this. ``told`` None: whatever it was."""


@dataclass(frozen=True)
class Failure(Generic[S, A, T]):
    """The shortest beginning of a history that has no order: up to the return of ``broke``.

    ``order`` is one of what was answered before, with as little as can be of what was not. ``states`` are all those in
    which such an order could end, and in none of them could ``broke`` be told what it was. ``open`` was under way then.
    """

    part: Hashable
    broke: Operation[A, T]
    states: frozenset[S]
    order: tuple[Operation[A, T], ...]
    open: tuple[Operation[A, T], ...]

    def __str__(self) -> str:
        begin = min(operation.called for operation in (self.broke, *self.order, *self.open))
        left_out = len(self.order) - ORDER_SHOWN
        lines = [
            f"{self.part!r} has no order that explains this answer:",
            f"  {self.broke.within(begin)}",
            f"what was answered before has one, after which it is {' or '.join(sorted(map(str, self.states)))}:",
            *([f"  ({left_out} operations)"] if left_out > 0 else []),
            *(f"  {operation.within(begin)}" for operation in self.order[-ORDER_SHOWN:]),
        ]
        if self.open:
            lines += ["under way then, and not in that order:", *(f"  {one.within(begin)}" for one in self.open)]
        return "\n".join(lines)


def failures(
    history: Iterable[Operation[A, T]], model: Model[S, A, T], part_of: Callable[[A], Hashable]
) -> Iterator[Failure[S, A, T]]:
    """Of each part that is not linearizable."""
    parts: dict[Hashable, list[Operation[A, T]]] = {}
    for operation in history:
        parts.setdefault(part_of(operation.asked), []).append(operation)
    for part, operations in parts.items():
        failure = _Search(operations, model).failure(part)
        if failure is not None:
            yield failure


class _Search(Generic[S, A, T]):
    """Of one part. Events have places from 1 on in the order of time; 0 is the head of the list."""

    def __init__(self, operations: Sequence[Operation[A, T]], model: Model[S, A, T]) -> None:
        self._operations = operations
        self._model = model
        self._state = model.start()
        self._left = sum(operation.told is not None for operation in operations)
        """Operations that must be done and are not."""
        events = sorted(_events(operations))
        self._number = [-1, *(number for _, _, number in events)]
        self._is_call = [False, *(not is_return for _, is_return, _ in events)]
        self._place_of = {(number, is_return): place for place, (_, is_return, number) in enumerate(events, 1)}
        self._next: list[int] = [*range(1, len(events) + 1), 0]
        self._previous: list[int] = [len(events), *range(len(events))]
        self._done = 0
        """A bit for each operation."""
        self._seen: set[tuple[int, S]] = set()
        self._way: list[tuple[int, S]] = []
        """At which places something was done, and the state before."""
        self._furthest = 0
        """The return that no order has come past."""
        self._states: set[S] = set()
        self._order: list[int] = []

    def failure(self, part: Hashable) -> Failure[S, A, T] | None:
        if self._has_order():
            return None
        broke = self._operations[self._number[self._furthest]]
        assert broke.ended is not None
        order = tuple(self._operations[number] for number in self._order)
        begun = set(self._number[1 : self._furthest]) - {self._number[self._furthest], *self._order}
        still_open = tuple(self._operations[number] for number in sorted(begun))
        return Failure(part, broke, frozenset(self._states), order, still_open)

    def _has_order(self) -> bool:
        place = self._next[0]
        while self._left:
            number = self._number[place]
            operation = self._operations[number]
            if self._is_call[place]:
                after = self._model.after(self._state, operation.asked, operation.told)
                # With an unknown outcome and no effect, it is as well never done.
                is_idle = operation.told is None and after == self._state
                if after is not None and not is_idle and self._do(place, after):
                    place = self._next[0]
                else:
                    place = self._next[place]
            elif operation.told is None and self._do(place, self._state):
                place = self._next[0]
            else:
                self._note_block(place)
                place = self._back()
                if place == 0:
                    return False
        return True

    def _do(self, place: int, after: S) -> bool:
        """The operation at this place, called or passed over; False where that is known to lead nowhere."""
        number = self._number[place]
        key = self._done | 1 << number, after
        if key in self._seen:
            return False
        self._seen.add(key)
        self._way.append((place, self._state))
        self._done, self._state = key
        self._left -= self._operations[number].told is not None
        self._take_out(self._place_of[number, False])
        self._take_out(self._place_of[number, True])
        return True

    def _back(self) -> int:
        """Put back what was done last and could have been done later. The place behind; 0: there is nothing left."""
        while self._way:
            place, self._state = self._way.pop()
            number = self._number[place]
            self._done ^= 1 << number
            self._left += self._operations[number].told is not None
            self._put_back(self._place_of[number, True])
            self._put_back(self._place_of[number, False])
            if self._is_call[place]:
                return self._next[place]
        return 0

    def _take_out(self, place: int) -> None:
        before, behind = self._previous[place], self._next[place]
        self._next[before], self._previous[behind] = behind, before

    def _put_back(self, place: int) -> None:
        before, behind = self._previous[place], self._next[place]
        self._next[before] = self._previous[behind] = place

    def _note_block(self, place: int) -> None:
        """What is done now has all that returned before this place."""
        if self._operations[self._number[place]].told is None or place < self._furthest:
            return
        order = [self._number[done] for done, _ in self._way if self._is_call[done]]
        if place > self._furthest:
            self._furthest = place
            self._states.clear()
            self._order = order
        elif len(order) < len(self._order):
            self._order = order
        self._states.add(self._state)


def _events(operations: Sequence[Operation[A, T]]) -> Iterator[tuple[float, bool, int]]:
    """When, whether it is a return, of which operation. Of the same moment calls come first: those may overlap."""
    for number, operation in enumerate(operations):
        yield operation.called, False, number
        yield math.inf if operation.ended is None else operation.ended, True, number
