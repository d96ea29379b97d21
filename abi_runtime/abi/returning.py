"""After a lost connection: dial again, and tell a daemon that may know nothing everything it needs.

Both daemons, the one that only lost the connection and the one that was started anew, are told the same: functions,
options, and all that is unfinished, under the numbers it had. The first ignores what it knows and sends the ends of
what has ended; the second starts over. Results come once, because a number leaves ``pending`` with its first end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from abi import errors
from abi.bodies import put_of
from abi.dial import connect
from abi.wire.codec import encode_failure
from abi.wire.schema import End, EndKind, Failure, Kind, Put, Reference, Task

if TYPE_CHECKING:
    from abi.private import PrivateDaemon
    from abi.ref import Ref
    from abi.session import Session

RETURN_SECONDS: Final = 10.0
"""As long as a daemon keeps a session whose connection is gone (DESIGN.md)."""
PAUSE_SECONDS: Final = 0.05
_STAYS: Final = frozenset({Kind.CANCEL, Kind.WANT, Kind.BORROW})
"""What had not been sent and is not rebuilt from the session's own books."""


class Returner:
    """A link's ``on_lost``. Called by whichever thread receives, with the lead."""

    def __init__(self, session: Session, path: str, namespace: str, token: str, private: PrivateDaemon | None) -> None:
        self._session = session
        self._path = path
        self._namespace = namespace
        self._token = token
        self._private = private

    def __call__(self) -> None:
        session = self._session
        why = session.link.why
        if self._private is not None:
            session.end_all(f"the private daemon ended ({why}){self._private.last_words()}")
            return
        deadline = time.monotonic() + RETURN_SECONDS
        while session.live:
            try:
                sock, welcome = connect(self._path, self._namespace, session.prefix.hex(), self._token)
            except (OSError, errors.Busy) as problem:
                if time.monotonic() > deadline:
                    session.end_all(
                        f"the connection to the daemon was lost ({why}) and nobody answered at {self._path} "
                        f"for {RETURN_SECONDS:.0f} s ({problem})"
                    )
                    return
                time.sleep(PAUSE_SECONDS)
                continue
            except errors.AbiError as refusal:
                session.end_all(
                    f"the connection to the daemon was lost ({why}); it refuses to go on: {refusal.message}"
                )
                return
            self._token = welcome.token or self._token
            self._go_on(sock, welcome.resumed, bytes.fromhex(welcome.session))
            return

    def _go_on(self, sock: Any, resumed: bool, prefix: bytes) -> None:
        session = self._session
        if not resumed:
            session.prefix = session.home.prefix = prefix
            _lose_started(session)
        # What was on its way when the connection broke may have been lost, a PUT among it: also a daemon that knows the
        # session is told again, and ignores what it knows.
        session.supplied.clear()
        session.unknown_below = session.next_seq()
        session.link.replace(sock, lambda unsent: _rebuild(session, unsent, resumed))
        session.link.flush()


def _lose_started(session: Session) -> None:
    """Those that may start once, and had: whether they finished, nobody knows."""
    failure = encode_failure(Failure("TaskLostError", "it had started when its daemon ended, and max_retries is 0"))
    ends = [End(seq, EndKind.LOST, failure) for seq in session.starting]
    session._on_ends(ends, [])  # pyright: ignore[reportPrivateUsage]


def _rebuild(session: Session, unsent: list[tuple[Any, ...]], resumed: bool) -> list[tuple[Any, ...]]:
    entries: list[tuple[Any, ...]] = [_function(session, function) for function in session.functions.values()]
    entries += [(Kind.OPTIONS, options) for options in session.options.values()]
    entries += [entry for entry in unsent if entry[0] == Kind.PUT]
    entries += _values_needed(session)
    if resumed:
        # A BORROW may have been lost on the way: one hold too many until the session ends, rather than one too few.
        entries += [(Kind.BORROW, Reference(seq)) for seq in list(session.borrowed)]
    unsent = [entry for entry in unsent if entry[0] not in (Kind.BORROW, Kind.PUT)]
    entries += [_again(session, ref) for ref in list(session.pending.values())]
    entries += [(Kind.CANCEL, item) for item in list(session.cancels.values())]
    entries += [entry for entry in unsent if entry[0] in _STAYS and entry[0] != Kind.CANCEL]
    return entries


def _values_needed(session: Session) -> list[tuple[Any, ...]]:
    """Objects that unfinished tasks and functions need and that the program has: the new daemon has nothing."""
    entries = []
    for refs in [*session.keeps.values(), *session.function_keeps.values()]:
        for ref in refs:
            end = ref.end
            if end is None or end.kind != EndKind.OK or end.seq in session.supplied:
                continue
            session.supplied.add(end.seq)
            entries.append(put_of(end))
    return entries


def _again(session: Session, ref: Ref[Any]) -> tuple[Any, ...]:
    item = ref.state
    if isinstance(item, Reference):
        return Kind.WANT, item
    kind = Kind.PUT if isinstance(item, Put) else Kind.SUBMIT
    assert isinstance(item, (Task, Put))
    body = session.bodies.get(item.seq)
    return (kind, item) if body is None else (kind, item, _blob_of(body))


def _function(session: Session, function: Any) -> tuple[Any, ...]:
    body = session.function_views.get(function.index)
    return (Kind.FUNCTION, function) if body is None else (Kind.FUNCTION, function, _blob_of(body))


def _blob_of(body: memoryview) -> Any:
    from abi.objects.memfd import create

    return create([body])
