"""A worker is a submitter too: the session by which a task's own ``remote``, ``get`` and ``put`` go through its
socket."""

from __future__ import annotations

from collections.abc import Callable

from abi.link import Link
from abi.session import Hooks, Session, set_current
from abi.wire.schema import Setup


class _Hooks(Hooks):
    def __init__(self, blocked: Callable[[], None], unblocked: Callable[[], None]) -> None:
        self._blocked = blocked
        self._unblocked = unblocked

    def blocked(self) -> None:
        self._blocked()

    def unblocked(self) -> None:
        self._unblocked()


def open_session(link: Link, setup: Setup, blocked: Callable[[], None], unblocked: Callable[[], None]) -> Session:
    """Makes it the process's own. What nested tasks print goes to the program, so nothing is printed here."""
    session = Session(link, setup.session, setup.submitter, log_to_driver=False)
    session.hooks = _Hooks(blocked, unblocked)
    set_current(session)
    return session
