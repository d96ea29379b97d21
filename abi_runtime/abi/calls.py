"""``get``, ``wait``, ``put``, ``cancel``, ``gather``: what a program does with references.

Light to import: in ``abi.get(f.remote())`` the name ``abi.get`` comes first, and the call in it is to start a private
daemon before anything is loaded (see ``abi.program``). So each function here begins with ``_load``.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from abi.errors import AbiError, GetTimeoutError

if TYPE_CHECKING:
    from pickle import loads

    from abi.ref import Ref, record_of
    from abi.session import Session, current, of
    from abi.wire.schema import End

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_is_loaded = False


def _load() -> None:
    global Ref, End, Session, current, loads, of, record_of, _is_loaded
    from pickle import loads

    from abi.program import begin

    begin()
    from abi.ref import Ref, record_of
    from abi.session import Session, current, of
    from abi.wire.schema import End

    _is_loaded = True


@overload
def get(refs: Ref[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: Sequence[Ref[T]], *, timeout: float | None = None) -> list[T]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the values of a list of them in its order; waits until they are there.

    ``timeout`` in seconds, 0: only what is there already. Raises GetTimeoutError (the task goes on); a task's
    failure as TaskError and its own type at once, without waiting for the rest; TypeError for anything but
    references.
    """
    if not _is_loaded:
        _load()
    if isinstance(refs, Ref):
        values, error = _get([refs], timeout)
    elif isinstance(refs, (list, tuple)):
        values, error = _get(_only_refs(refs, "get"), timeout)
    else:
        raise TypeError(f"get takes a Ref or a list of them, not {type(refs).__name__}")
    if error is not None:
        # Raised here, so that the traceback has one line of ours. The name goes: the error refers to this frame, and a
        # cycle through it would keep all that the caller's frames hold until the garbage collector looks.
        try:
            raise error
        finally:
            del error
    return values[0] if isinstance(refs, Ref) else values


def _get(refs: Sequence[Ref[Any]], timeout: float | None) -> tuple[list[Any], BaseException | None]:
    if not refs:
        return [], None
    session = _session_of(refs)
    try:
        _await_all(session, refs, timeout)
        return _values(refs), None
    except AbiError as error:
        return [], BaseException.with_traceback(error, None)  # the user's class may define it too


def _values(refs: Sequence[Ref[Any]]) -> list[Any]:
    values = []
    for ref in refs:
        end = ref.state
        # A single inline value, which nearly all are, is loaded here: two calls less for each.
        if type(end) is End and not end.kind and end.parts is None and type(end.payload) is bytes:
            try:
                values.append(loads(end.payload) if end.payload else None)
                continue
            except Exception:  # told in full by value_of
                pass
        end = ref.end
        assert end is not None
        values.append(Session.value_of(ref, end))
    return values


def _await_all(session: Session | None, refs: Sequence[Ref[Any]], timeout: float | None) -> None:
    """Until all have ended, or one has failed. Raises that failure, or GetTimeoutError."""
    at = 0
    failures = -1
    count = len(refs)
    failed: Ref[Any] | None = None

    def done() -> bool:
        # Called after each batch of ends: it goes on where it stopped, so all of them together cost one pass.
        nonlocal at, failures, failed
        while at < count:
            end = refs[at].state
            if type(end) is not End:
                end = refs[at].end
                if end is None:
                    break
            if end.kind:
                failed = refs[at]
                return True
            at += 1
        else:
            return True
        assert session is not None
        if failures != session.failures:
            failures = session.failures
            failed = next((ref for ref in refs if (end := ref.end) is not None and end.kind), None)
        return failed is not None

    if not done():
        assert session is not None
        home = session.home
        for ref in refs:
            if ref.state is None or ref.home is not home:  # all others were submitted here: a call less for each
                session.want(ref)
        if not session.wait(done, timeout):
            session.check()
            left = sum(ref.end is None for ref in refs)
            what = refs[0].short if count == 1 else f"{left} of {count} tasks"
            raise GetTimeoutError(
                f"{what} had not ended after {timeout} s", hint="the work goes on: get again, or cancel"
            )
    if failed is not None:
        end = failed.end
        assert end is not None
        Session.value_of(failed, end)


@overload
def wait(
    refs: Sequence[Ref[T]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[Ref[T]], list[Ref[T]]]: ...
@overload
def wait(
    refs: Sequence[Ref[Any]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[Ref[Any]], list[Ref[Any]]]: ...
def wait(refs: Any, *, num_returns: int = 1, timeout: float | None = None) -> Any:
    """``(ready, rest)``, both in the order given: returns when ``num_returns`` have ended or ``timeout`` seconds
    are over.

    At most ``num_returns`` are ready. A failure counts as an end. Raises TypeError for anything but a list of
    references, ValueError for duplicates and for a number that cannot be.
    """
    if not _is_loaded:
        _load()
    if isinstance(refs, Ref):
        raise TypeError("wait takes a list of Refs: write wait([ref])")
    if not isinstance(refs, (list, tuple)):
        raise TypeError(f"wait takes a list of Refs, not {type(refs).__name__}")
    refs = _only_refs(refs, "wait")
    if not refs:
        return [], []
    if len(set(refs)) != len(refs):
        raise ValueError("wait takes each Ref once")
    if not 0 < num_returns <= len(refs):
        raise ValueError(f"num_returns must be from 1 to {len(refs)}, the number of Refs, and is {num_returns}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative, and is {timeout}")
    session = _session_of(refs)
    waiting: list[Ref[Any]] = refs

    def done() -> bool:
        nonlocal waiting
        waiting = [ref for ref in waiting if ref.end is None]
        return len(refs) - len(waiting) >= num_returns

    if not done():
        assert session is not None
        for ref in waiting:
            session.want(ref)
        session.wait(done, timeout)
    ready = [ref for ref in refs if ref.end is not None][:num_returns]
    chosen = set(map(id, ready))
    return ready, [ref for ref in refs if id(ref) not in chosen]


def put(value: T) -> Ref[T]:
    """An object as a reference, pickled now. Pass it to many tasks and it is sent once. Raises
    SerializationError."""
    if not _is_loaded:
        _load()
    if isinstance(value, Ref):
        raise TypeError("put takes a value, not a Ref: it is a reference already")
    return current().put(value)


def cancel(ref: Ref[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task: one that waits never runs, one that runs gets a KeyboardInterrupt, or with ``force`` its
    worker ends.

    ``recursive`` cancels the tasks it submitted as well. A task that has ended: nothing happens. ``get`` then
    raises TaskCancelledError, after ``force`` WorkerCrashedError.
    """
    if not _is_loaded:
        _load()
    if not isinstance(ref, Ref):
        raise TypeError(f"cancel takes a Ref, not {type(ref).__name__}")
    of(ref).cancel(ref, force=force, recursive=recursive)


class Gathered(Generic[T_co]):
    """Several references as one: ``await`` it, or ``.get()``; the values come as a list, in order."""

    def __init__(self, refs: tuple[Ref[T_co], ...]) -> None:
        self.refs = refs

    def get(self, timeout: float | None = None) -> list[T_co]:
        return get(self.refs, timeout=timeout)

    def __await__(self) -> Generator[Any, None, list[T_co]]:
        from abi.aio import results_of

        return results_of(self.refs).__await__()

    def __repr__(self) -> str:
        ended = sum(ref.end is not None for ref in self.refs)
        return f"<Gathered: {ended} of {len(self.refs)} ended>"


def gather(*refs: Ref[T]) -> Gathered[T]:
    """``await abi.gather(a, b)`` or ``abi.gather(a, b).get()``: all values, or the first failure."""
    if not _is_loaded:
        _load()
    return Gathered(tuple(_only_refs(refs, "gather")))


def _only_refs(refs: Sequence[Any], caller: str) -> list[Ref[Any]]:
    for ref in refs:
        if not isinstance(ref, Ref):
            raise TypeError(f"{caller} takes Refs only, and one of these is {type(ref).__name__}")
    return list(refs)


def _session_of(refs: Sequence[Ref[Any]]) -> Session | None:
    """The session to wait in; None if all have ended, which can be had even after it."""
    for ref in refs:
        if record_of(ref).end is None:
            return of(ref)
    return None
