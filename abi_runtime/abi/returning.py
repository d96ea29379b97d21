"""After a lost connection: dial again, and tell a daemon that may know nothing everything it needs.

Both daemons, the one that only lost the connection and the one that was started anew, are told the same: functions,
options, and all that is unfinished, under the numbers it had. The first ignores what it knows and sends the ends of
what has ended; the second starts over. Results come once, because a number leaves ``pending`` with its first end.

A daemon that ends a connection over something we said (REFUSED) gets a second hearing: it may have been short of
descriptors, say, for a moment. If it says so again right after the return, then of what is said at every return, and
the session ends with its words.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from abi import errors
from abi.bodies import put_of
from abi.dial import connect
from abi.wire.codec import encode_failure
from abi.wire.schema import End, EndKind, Failure, Kind, Reference, Task

if TYPE_CHECKING:
    from abi.private import PrivateDaemon
    from abi.ref import Ref
    from abi.session import Session
    from abi.wire.schema import Welcome

RETURN_SECONDS: Final = 10.0
"""As long as a daemon keeps a session whose connection is gone (DESIGN.md)."""
PAUSE_SECONDS: Final = 0.05
IDLE_PAUSE_SECONDS: Final = 1.0
"""Between two attempts while nothing is unfinished, which may be for days: the program misses nothing."""
RETURNS_APART_SECONDS: Final = 1.0
"""Between two returns, at least: a daemon that drops us again and again is not to be kept busy with telling it all."""


class Returner:
    """A link's ``on_lost``: one attempt a call. Called by whichever thread receives, with the lead."""

    def __init__(self, session: Session, path: str, namespace: str, token: str, private: PrivateDaemon | None) -> None:
        self._session = session
        self._path = path
        self._namespace = namespace
        self._token = token
        self._private = private
        self._deadline = 0.0
        """Of the loss that is being dealt with; 0 while there is none, or nothing is unfinished and so nothing lost."""
        self._idle_until = -math.inf
        """No attempt before, unless something is unfinished."""
        self._returned = -math.inf

    def __call__(self) -> float | None:
        """In how many seconds to try again; None when there is a connection, or will be none."""
        session, now = self._session, time.monotonic()
        if not session.live:
            return None
        why = session.link.why
        if session.refused and (self._private is not None or now - self._returned < RETURN_SECONDS):
            final = f"the daemon ended this session: {why}"
        elif self._private is not None:
            final = self._private.how_it_ended()
        elif now < (self._idle_until if not session.pending else self._returned + RETURNS_APART_SECONDS):
            return PAUSE_SECONDS
        else:
            self._deadline = (self._deadline or now + RETURN_SECONDS) if session.pending else 0.0
            self._idle_until = now + IDLE_PAUSE_SECONDS
            try:
                sock, welcome = connect(self._path, self._namespace, session.prefix.hex(), self._token)
            except (OSError, errors.Busy) as problem:
                if not self._deadline or time.monotonic() <= self._deadline:
                    return PAUSE_SECONDS
                final = (
                    f"the connection to the daemon was lost ({why}) and nobody answered at {self._path} "
                    f"for {RETURN_SECONDS:.0f} s ({problem})"
                )
            except errors.AbiError as refusal:
                final = f"the connection to the daemon was lost ({why}); it refuses to go on: {refusal.message}"
            else:
                self._token = welcome.token or self._token
                self._go_on(sock, welcome)
                self._deadline, self._returned = 0.0, time.monotonic()
                self._idle_until = self._returned + RETURNS_APART_SECONDS
                return None
        session.end_all(final)
        return None

    def _go_on(self, sock: Any, welcome: Welcome) -> None:
        session, resumed = self._session, welcome.resumed
        if not resumed:
            session.prefix = session.home.prefix = bytes.fromhex(welcome.session)
            _lose_started(session, welcome.host)
        # What was on its way when the connection broke may have been lost, a PUT among it: also a daemon that knows the
        # session is told again, and ignores what it knows.
        session.refused = False
        session.supplied.clear()
        session.unknown_below = session.next_seq()
        session.link.replace(sock, lambda unsent: _rebuild(session, unsent, resumed))
        session.link.flush()


def _lose_started(session: Session, host: str) -> None:
    """Those that may start once, and had: whether they finished, nobody knows. ``host`` is the daemon's: who answers
    at the same socket is where the one before was."""
    names = {options.index: options.name for options in session.options.values()}
    text = "it had started when its daemon ended, and max_retries is 0"
    ends = []
    for seq in list(session.starting):
        ref = session.pending.get(seq)
        name = names.get(ref.state.options, "") if ref is not None and isinstance(ref.state, Task) else ""
        failure = Failure("TaskLostError", text, host=host, task_name=name)
        ends.append(End(seq, EndKind.LOST, encode_failure(failure)))
    session._on_ends(ends, [])  # pyright: ignore[reportPrivateUsage]


def _rebuild(session: Session, unsent: list[tuple[Any, ...]], resumed: bool) -> list[tuple[Any, ...]]:
    entries: list[tuple[Any, ...]] = [_function(session, function) for function in session.functions.values()]
    entries += [(Kind.OPTIONS, options) for options in session.options.values()]
    entries += [entry for entry in unsent if entry[0] == Kind.PUT]
    entries += _values_needed(session)
    if resumed:
        # A BORROW may have been lost on the way: one hold too many until the session ends, rather than one too few.
        entries += [(Kind.BORROW, Reference(seq)) for seq in list(session.borrowed)]
    entries += [_again(session, ref) for ref in list(session.pending.values())]
    entries += [(Kind.CANCEL, item) for item in list(session.cancels.values())]
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
    assert isinstance(item, Task)
    body = session.bodies.get(item.seq)
    return (Kind.SUBMIT, item) if body is None else (Kind.SUBMIT, item, body)


def _function(session: Session, function: Any) -> tuple[Any, ...]:
    body = session.function_views.get(function.index)
    return (Kind.FUNCTION, function) if body is None else (Kind.FUNCTION, function, body)
