"""A reference to what a task will return, and at the same time the client's only record of that task.

``state`` says where it stands: the ``Task`` as it was sent (kept for sending it again after a lost connection), then
the ``End``, which an object has from the start. A reference from elsewhere has None, and a ``Reference`` once somebody
asked for its end. A million may wait at once, so a Ref is a msgspec Struct: made in C, and never tracked by the
garbage collector, as all its fields are of types that are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from abi import ids
from abi.wire.schema import End, EndKind, Task

if TYPE_CHECKING:
    from concurrent.futures import Future

    from abi.helper import Helper
    from abi.session import Session

T_co = TypeVar("T_co", covariant=True)


class Home(msgspec.Struct, gc=False, eq=False):
    """What all references of one session share. Not tracked either, so that they need not be."""

    prefix: bytes
    session: Session | None
    """None after the session's end, and for references that belong to another program."""
    releases: list[int]
    helper: Helper | None


class Ref(msgspec.Struct, Generic[T_co], weakref=True, eq=False):
    """What ``.remote()`` and ``put`` return: awaitable, comparable, and to be passed on to other tasks."""

    seq: int
    home: Home
    state: Any = None

    def __del__(self) -> None:
        home = self.home
        home.releases.append(self.seq)
        helper = home.helper
        if helper is not None and not helper.state:  # written out: a million are dropped at once
            helper.watch()

    @property
    def index(self) -> int:
        """Which of the task's results."""
        return 0

    @property
    def id(self) -> str:
        """All 26 letters of the task's id."""
        return ids.to_text(ids.task_id(self.home.prefix, self.seq))

    @property
    def short(self) -> str:
        """The id's first letters: as ``abi jobs`` and the task's own output show it."""
        return self.id[: ids.SHORT_LETTERS]

    def __await__(self) -> Generator[Any, None, T_co]:
        from abi.aio import result_of

        return result_of(self).__await__()

    def future(self) -> Future[T_co]:
        """A ``concurrent.futures.Future`` of the value; cancelling it does not cancel the task."""
        from abi.aio import future_of

        return future_of(self)

    @property
    def end(self) -> End | None:
        """How the task ended, as far as this process knows."""
        state = self.state
        return state if type(state) is End else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ref):
            return NotImplemented
        return self.seq == other.seq and self.index == other.index and self.home.prefix == other.home.prefix

    def __hash__(self) -> int:
        return hash((self.seq, self.index))

    def __copy__(self) -> Ref[T_co]:
        return self

    def __deepcopy__(self, _memo: object) -> Ref[T_co]:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return load_ref, (self.home.prefix, self.seq, self.index)

    def __abi_reduce__(self, nested: list[Ref[Any]]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """For payloads: ``nested`` collects what the daemon is to hold as long as the payload lives."""
        from abi.session import of

        of(self).supply(self)
        nested.append(record_of(self))
        return self.__reduce__()

    def __repr__(self) -> str:
        return f"<Ref {self.short}{f'[{self.index}]' if self.index else ''}, {_in_words(self)}>"


class PartRef(Ref[T_co], eq=False):
    """One of several results. The task's record is ``whole``, which lives as long as any of its parts."""

    at: int = 0
    whole: Ref[Any] | None = None

    def __del__(self) -> None:
        pass

    @property
    def index(self) -> int:
        return self.at

    @property
    def end(self) -> End | None:
        return self.whole.end if self.whole is not None else None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return load_ref, (self.home.prefix, self.seq, self.at, True)


def record_of(ref: Ref[Any]) -> Ref[Any]:
    """The Ref that is the task's own record: ``ref`` itself, or what it is a part of."""
    if type(ref) is PartRef and ref.whole is not None:
        return ref.whole
    return ref


_loading = threading.RLock()


def load_ref(prefix: bytes, seq: int, index: int, part: bool = False) -> Ref[Any]:
    """Unpickles a reference. It is one hold more in the process that loads it."""
    from abi.session import active

    session = active()
    if session is None or session.prefix != prefix:
        # Of another program: it can be shown, compared and passed around; using it raises.
        return Ref(seq, Home(prefix, None, [], None))
    with _loading:
        whole = session.borrow(seq)
    return PartRef(seq, whole.home, None, index, whole) if part else whole


def _in_words(ref: Ref[Any]) -> str:
    end = ref.end
    if end is not None:
        return "finished" if end.kind == EndKind.OK else EndKind(end.kind).name.lower().replace("_", " ")
    if ref.home.session is None:
        return "of a session that ended or of another program"
    return "under way" if isinstance(record_of(ref).state, Task) else "held here"
