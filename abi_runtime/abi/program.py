"""``init`` and ``shutdown``: how a program gets its session, by itself at first use or on request."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
from importlib import import_module
from typing import Any, Final

from abi import errors, paths
from abi import session as sessions
from abi.dial import connect
from abi.guard import SigintGuard
from abi.link import Link
from abi.private import PrivateDaemon
from abi.returning import Returner
from abi.session import RECEIVED, Session
from abi.wire.codec import decoders
from abi.wire.schema import Welcome

_PRIVATE: Final = ("private", "local")
_starting = threading.RLock()
_daemon: PrivateDaemon | None = None


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    resources: dict[str, float] | None = None,
    namespace: str = "default",
    ignore_reinit_error: bool = False,
    log_to_driver: bool = True,
) -> None:
    """Connect this program: to ``address`` (a socket or its directory), else where ``ABI_*`` points, else to the daemon
    that runs on this host, else to a private one, which ends with the program. Anything else in abi does so by itself.

    ``num_cpus`` and ``resources`` are for a private daemon; ``address="private"`` asks for one in any case.
    ``log_to_driver=False`` drops what tasks print. Raises RuntimeError if this program is connected already, unless
    ``ignore_reinit_error``; DaemonUnreachable if nobody answers at an address that was named.
    """
    with _starting:
        if sessions.active() is not None:
            if ignore_reinit_error or sessions.current().submitter:
                return
            raise RuntimeError("this program is connected already: abi.shutdown() first, or ignore_reinit_error=True")
        _connect(address, num_cpus, resources, namespace, log_to_driver)


def is_initialized() -> bool:
    return sessions.active() is not None


def shutdown() -> None:
    """End the session: unfinished work is cancelled, a private daemon ends. Nothing happens if there is none."""
    global _daemon
    with _starting:
        session = sessions.active()
        daemon, _daemon = _daemon, None
        if session is not None and session.submitter == 0:
            session.close()
            sessions.set_current(None)
        if daemon is not None:
            daemon.stop()


def connect_at_first_use(previous: Session | None) -> Session:
    """What ``current`` calls without a session. Raises SessionLost after one that was lost: its references are gone."""
    with _starting:
        session = sessions.active()
        if session is not None:
            return session
        if previous is not None:
            previous.check()
        return _connect(None, None, None, "default", True)


def _connect(
    address: str | None,
    num_cpus: float | None,
    resources: dict[str, float] | None,
    namespace: str,
    log_to_driver: bool,
) -> Session:
    global _daemon
    if sys.platform != "linux":
        raise errors.Refused(f"abi runs on Linux 5.4 and newer, and this is {sys.platform}")
    found = None if address in _PRIVATE else _find(address, namespace)
    private = None
    if found is None:
        private = PrivateDaemon(num_cpus, resources)
        try:
            import_module("abi.cloud")  # while the daemon starts: what lives in __main__ needs it at its first call
            private.wait_ready()
            path = private.socket_path
            sock, welcome = connect(path, namespace)
        except BaseException:
            private.stop()
            raise
    else:
        path, sock, welcome = found
        if num_cpus is not None or resources is not None:
            sock.close()
            raise ValueError(
                f"num_cpus and resources are for a private daemon, and one runs already ({path}): "
                "leave them out, or say address='private'"
            )
    _stop_daemon()
    _daemon = private
    session = _session(sock, welcome, log_to_driver)
    session.link.on_lost = Returner(session, path, namespace, welcome.token, private)
    sessions.set_current(session)
    return session


def _session(sock: socket.socket, welcome: Welcome, log_to_driver: bool) -> Session:
    link = Link(sock, decoders(RECEIVED), {}, guard=SigintGuard())
    session = Session(
        link,
        bytes.fromhex(welcome.session),
        0,
        tasks_max=welcome.tasks_max,
        bytes_max=welcome.bytes_max,
        log_to_driver=log_to_driver,
    )
    session.cpus = welcome.cpus
    return session


def _find(address: str | None, namespace: str) -> tuple[str, socket.socket, Welcome] | None:
    """A connection to a daemon that runs, or None if nothing was named and none does."""
    named = address not in (None, "auto") or any(os.environ.get(name) for name in ("ABI_SOCKET", "ABI_RUNTIME_DIR"))
    tried = _candidates(address)
    problems: list[str] = []
    for path in tried:
        try:
            if path != paths.SYSTEM_SOCKET and not named:
                paths.check_ours(os.path.dirname(path))
            return path, *connect(path, namespace)
        except (OSError, errors.Denied) as problem:
            if named:
                raise errors.DaemonUnreachable(
                    f"no daemon answers at {path}: {problem}", hint="start one there with `abid start -d`"
                ) from None
            problems.append(str(problem))
    if address == "auto":
        raise errors.DaemonUnreachable(f"no daemon runs on this host: {'; '.join(problems)}", hint="`abid start -d`")
    return None


def _candidates(address: str | None) -> list[str]:
    if address in (None, "auto"):
        return paths.candidates()
    assert address is not None
    path = os.path.abspath(address.removeprefix("unix://").removeprefix("unix:"))
    return [os.path.join(path, paths.SOCKET_NAME) if os.path.isdir(path) else path]


def _stop_daemon() -> None:
    if _daemon is not None:
        _daemon.stop()


def _at_exit() -> None:
    with contextlib.suppress(Exception):  # the interpreter ends: whatever it is, nobody can act on it
        shutdown()


def _after_fork() -> None:
    """The child has neither the parent's session nor its daemon, and may connect on its own."""
    global _daemon, _starting
    _daemon = None
    _starting = threading.RLock()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)

__all__: list[Any] = ["connect_at_first_use", "init", "is_initialized", "shutdown"]
