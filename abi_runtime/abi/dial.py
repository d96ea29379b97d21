"""From an address to a session that may speak: connect, greet, be welcomed or refused."""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

import msgspec

from abi import errors, paths, transport
from abi.guard import uninterrupted
from abi.version import __version__
from abi.wire.codec import decode_greeting, encode_greeting
from abi.wire.frames import FRAME_BYTES_MAX, HEADER, JSON, pack
from abi.wire.schema import PROTOCOL, Hello, Kind, Program, Refused, Welcome

GREETING_SECONDS: Final = 10.0
"""A daemon that has accepted answers in milliseconds; after this it hangs, and saying so helps more than waiting."""
SEND_BUFFER_BYTES: Final = 1024 * 1024


def program(namespace: str) -> Program:
    """The world that this program's workers are to take on: read anew at each connection."""
    from abi.interpreter import this_interpreter

    main_path = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # deleted under our feet
        directory = "/"
    return Program(
        interpreter=this_interpreter(),
        sys_path=[entry or directory for entry in sys.path],
        directory=directory,
        environment=dict(os.environ),
        main_path=os.path.abspath(main_path) if main_path else "",
        name=os.path.basename(main_path) or "python",
    )


def connect(path: str, namespace: str, resume: str = "", token: str = "") -> tuple[socket.socket, Welcome]:
    """A session at the daemon behind ``path``. Raises OSError if nobody answers, or AbiError as the daemon refuses."""
    sock = transport.dial(path, timeout=GREETING_SECONDS)
    try:
        _check_peer(sock, path)
        sock.settimeout(GREETING_SECONDS)
        hello = Hello(
            protocol=PROTOCOL,
            role="session",
            version=__version__,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            uid=os.getuid(),
            pid=os.getpid(),
            namespace=namespace,
            program=program(namespace),
            resume=resume,
            token=token,
        )
        sock.sendall(pack(Kind.HELLO, encode_greeting(hello), codec=JSON))
        welcome = _answer(sock)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    except BaseException:
        sock.close()
        raise
    return sock, welcome


def _check_peer(sock: socket.socket, path: str) -> None:
    _pid, uid, _gid = transport.peer_credentials(sock)
    if path != paths.SYSTEM_SOCKET and uid not in (os.getuid(), 0):
        raise errors.Denied(f"the daemon behind {path} belongs to uid {uid}, not to you (uid {os.getuid()})")


def _answer(sock: socket.socket) -> Welcome:
    # Read to the byte: a daemon that knows the session sends ends right behind its welcome.
    length, kind, codec, _descriptors = HEADER.unpack(_exactly(sock, HEADER.size))
    if codec != JSON or length > FRAME_BYTES_MAX or kind not in (Kind.WELCOME, Kind.REFUSED):
        raise errors.ProtocolError("whatever listens there is no abi daemon")
    payload = _exactly(sock, length)
    try:
        with uninterrupted():  # see ``abi.wire.codec``
            if kind == Kind.WELCOME:
                return decode_greeting(payload, Welcome)
            refused = decode_greeting(payload, Refused)
    except msgspec.DecodeError as error:
        raise errors.ProtocolError(f"the daemon's greeting does not decode: {error}") from None
    raise errors.error_from({"code": refused.code, "message": refused.message, "hint": refused.hint})


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionResetError("the daemon closed the connection while it greeted")
        data += more
    return data
