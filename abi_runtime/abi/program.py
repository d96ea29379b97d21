"""``init`` and ``shutdown``: how a program gets its session, by itself at first use or on request.

Light on purpose: where no daemon is to be found, one is started before anything else is loaded, since its start and our
imports take equally long and there is more than one processor.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from abi import errors, paths
from abi.guard import uninterrupted
from abi.private import PrivateDaemon

if TYPE_CHECKING:
    import socket

    from abi.session import Session
    from abi.wire.schema import Welcome

_PRIVATE: Final = ("private", "local")


class _Asked(NamedTuple):
    """What ``init`` was asked for; as it stands here, what it would be at first use."""

    address: str | None = None
    num_cpus: float | None = None
    resources: dict[str, float] | None = None
    namespace: str = "default"
    log_to_driver: bool = True


_starting = threading.RLock()
_opened: Session | None = None
"""The program's session, be it that it has ended since; None before the first and after ``shutdown``."""
_asked = _Asked()
"""How it was opened. One that ended while nothing was unfinished is followed by another of its kind."""
_daemon: PrivateDaemon | None = None
_early: PrivateDaemon | None = None
"""Started, and not waited for yet."""


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
        if _is_connected():
            from abi import session as sessions

            if ignore_reinit_error or sessions.current().submitter:
                return
            raise RuntimeError("this program is connected already: abi.shutdown() first, or ignore_reinit_error=True")
        _connect(_Asked(address, num_cpus, resources, namespace, log_to_driver))


def is_initialized() -> bool:
    return _is_connected()


def _is_connected() -> bool:
    sessions = sys.modules.get("abi.session")
    return sessions is not None and sessions.active() is not None


def shutdown() -> None:
    """End the session: unfinished work is cancelled, a private daemon ends. One that was lost is
    forgotten. Nothing happens if there is none. The next use of abi begins another."""
    global _daemon, _early, _opened, _asked
    with _starting:
        daemons = [daemon for daemon in (_daemon, _early) if daemon is not None]
        _daemon = _early = None
        try:
            if _is_connected():
                from abi import session as sessions

                session = sessions.current()
                if session.submitter == 0:
                    session.close()
                    sessions.set_current(None)
            elif _opened is not None:  # it was lost
                _opened.close()
                sys.modules["abi.session"].set_current(None)
        finally:
            _opened, _asked = None, _Asked()
            for daemon in daemons:
                daemon.stop()


def begin() -> None:
    """If it is plain that a private daemon will be needed, start it now and wait for it later."""
    global _early
    with _starting:
        is_plain = _asked == _Asked() and (_opened is None or not _opened.is_work_lost)
        if _early is None and is_plain and not _is_connected() and _is_supported() and not _is_found(None):
            _early = PrivateDaemon(None, None)
    _load_wire()


def _load_wire() -> None:
    """What must not be interrupted while it loads (see ``abi.wire.codec``)."""
    if "abi.wire.codec" not in sys.modules:
        with uninterrupted():
            import_module("abi.wire.codec")


def connect_at_first_use(previous: Session | None) -> Session:
    """What ``current`` calls without a session. Raises SessionLost after one that was lost with unfinished work, until
    ``init`` or ``shutdown`` says that this is known; who lost nothing goes on with the next."""
    from abi import session as sessions

    with _starting:
        session = sessions.active()
        if session is not None:
            return session
        if previous is not None and (previous.submitter or previous.is_work_lost):
            previous.check()
        return _connect(_asked)


def _connect(asked: _Asked) -> Session:
    global _daemon, _opened, _asked
    if not _is_supported():
        raise errors.Refused(f"abi runs on Linux 5.4 and newer, and this is {sys.platform}")
    address, num_cpus, resources, namespace, log_to_driver = asked
    found = None if address in _PRIVATE or not _is_found(address) else _find(address, namespace)
    if found is not None:
        private = None
        path, sock, welcome = found
        if num_cpus is not None or resources is not None:
            sock.close()
            raise ValueError(
                f"num_cpus and resources are for a private daemon, and one runs already ({path}): "
                "leave them out, or say address='private'"
            )
    else:
        private = _private(num_cpus, resources)
        path = private.socket_path
        sock, welcome = _greet_private(private, namespace)
    if _daemon is not None:
        _daemon.stop()
    _daemon = private
    _opened, _asked = _open(sock, welcome, path, namespace, log_to_driver), asked
    return _opened


def _private(num_cpus: float | None, resources: dict[str, float] | None) -> PrivateDaemon:
    global _early
    early, _early = _early, None
    if early is not None:
        if num_cpus is None and resources is None:
            return early
        early.stop()
    return PrivateDaemon(num_cpus, resources)


def _greet_private(private: PrivateDaemon, namespace: str) -> tuple[socket.socket, Welcome]:
    try:
        _load_wire()
        for name in ("abi.session", "abi.dial", "abi.returning", "abi.interpreter", "abi.cloud"):
            import_module(name)  # while it starts; what lives in __main__ needs the last at its first call
        from abi.dial import connect

        private.wait_ready()
        return connect(private.socket_path, namespace)
    except BaseException:
        private.stop()
        raise


def _open(sock: socket.socket, welcome: Welcome, path: str, namespace: str, log_to_driver: bool) -> Session:
    from abi import session as sessions
    from abi.returning import Returner

    session = _session(sock, welcome, log_to_driver)
    session.link.on_lost = Returner(session, path, namespace, welcome.token, _daemon)
    sessions.set_current(session)
    return session


def _is_supported() -> bool:
    return sys.platform == "linux"


def _is_found(address: str | None) -> bool:
    """Whether something was named, or lies where a daemon's socket would: cheap, and wrong only about dead ones."""
    return _is_named(address) or any(map(os.path.exists, paths.candidates()))


def _is_named(address: str | None) -> bool:
    return address is not None or any(os.environ.get(name) for name in ("ABI_SOCKET", "ABI_RUNTIME_DIR"))


def _session(sock: socket.socket, welcome: Welcome, log_to_driver: bool) -> Session:
    from abi.guard import SigintGuard
    from abi.link import Link
    from abi.session import RECEIVED, Session
    from abi.wire.codec import decoders

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
    _load_wire()
    from abi.dial import connect

    named = address != "auto" and _is_named(address)
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


def _at_exit() -> None:
    # The interpreter ends: whatever it is, nobody can act on it. A further Ctrl-C has it end sooner, which is all that
    # it can ask for now.
    with contextlib.suppress(Exception, KeyboardInterrupt):
        shutdown()


def _after_fork() -> None:
    """The child has neither the parent's session nor its daemon, and may connect on its own."""
    global _daemon, _early, _starting, _opened, _asked
    _daemon = _early = _opened = None
    _asked = _Asked()
    _starting = threading.RLock()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)

__all__: list[Any] = ["connect_at_first_use", "init", "is_initialized", "shutdown"]
