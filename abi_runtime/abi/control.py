"""The control client: what `abi status` and its siblings say to a daemon, in JSON.

One connection, one request at a time. Both sides send frames: a header of 8 bytes
(little endian: payload length 4, kind 1, codec 1, number of descriptors 2), then the
payload. `HELLO` is answered by `WELCOME` or `REFUSED`; each `REQUEST` by any number of
`EVENT`s and one `RESPONSE`, which carry its id. An answer to an older id belongs to a
stream that was given up, and is dropped.

Only the standard library, and of that only what starts quickly: this costs less than the
interpreter itself. The numbers of kinds and codecs are those of `abi.wire.schema.Kind`;
a test holds them equal.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType

from abi import paths, transport
from abi.errors import (
    AbiError,
    DaemonUnreachable,
    Denied,
    ProtocolError,
    VersionMismatch,
    error_from,
)
from abi.version import __version__

PROTOCOL = (1, 0)
HEADER = struct.Struct("<IBBH")
HELLO, WELCOME, REFUSED, REQUEST, RESPONSE, EVENT = range(1, 7)
CODEC_JSON = 2
# A thousand jobs with long command lines are some megabytes; more is a mistake or an attack.
PAYLOAD_BYTES_MAX = 64 << 20
RECV_BYTES = 256 << 10
CONNECT_TIMEOUT_S = 5.0
# A daemon answers within milliseconds; one that is stopped never does.
ANSWER_TIMEOUT_S = 30.0

TYPE_CHECKING = False  # typing itself costs milliseconds, which `abi status` has not
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]  # a JSON object
else:
    Object = dict


def connect(timeout: float = CONNECT_TIMEOUT_S, sockets: Sequence[str] | None = None) -> Control:
    """Greet the first daemon that answers among `sockets` (default: `paths.candidates()`).

    `timeout` in seconds holds for each of them. Raises `DaemonUnreachable`, `Denied`
    (another user's socket), `VersionMismatch`, or what the daemon refused with.
    """
    tried = paths.candidates() if sockets is None else list(sockets)
    reasons: list[str] = []
    denied: Denied | None = None
    for path in tried:
        try:
            sock = _dial_trusted(path, timeout)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            continue  # no daemon here, which is nothing to tell of
        except PermissionError:
            denied = denied or Denied(f"you may not open {path}")
        except OSError as problem:
            reasons.append(f"{path}: {problem.strerror or problem}")
        except Denied as problem:
            denied = denied or problem
        else:
            return _greet(sock, path, timeout)
    if denied is not None:
        raise denied
    also = f" ({'; '.join(reasons)})" if reasons else ""
    raise DaemonUnreachable(
        f"no daemon answers at {' or '.join(tried)}{also}",
        hint="start one with `abid start -d`",
    )


class Control:
    """A greeted connection. Use as a context manager, or `close()` it.

    `welcome` is what the daemon said of itself; `path` is its socket; `result` is the
    result of the last request that was answered.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path = path
        self.welcome: Object = {}
        self.result: Object = {}
        self._sock = sock
        self._received = bytearray()
        self._last_id = 0

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a request that is under way is given up."""
        self._sock.close()

    def request(self, op: str, *, answer_timeout: float | None = ANSWER_TIMEOUT_S, **params: Any) -> Object:
        """Ask and return the result, dropping events on the way.

        The frame's own words are `id` (of the request) and `op`; what a request is about is
        its `target`. Raises what the daemon answered (`abi.errors`), `DaemonUnreachable` if it says
        nothing for `answer_timeout` seconds or goes away, `ProtocolError` if it babbles.
        """
        for _ in self._exchange(op, params, answer_timeout):
            pass
        return self.result

    def stream(self, op: str, **params: Any) -> Iterator[Object]:
        """Ask, and yield each event as it comes, however long that takes; then `result` is set.

        The request is sent at the first `next`. Raises like `request`.
        """
        return self._exchange(op, params, None)

    def greet(self, timeout: float | None) -> None:
        """Say hello and read the answer. Called once, by `connect`."""
        self._sock.settimeout(timeout)
        self._send(HELLO, _hello())
        kind, answer = self._frame()
        if kind == REFUSED:
            raise error_from(answer)
        if kind != WELCOME:
            raise ProtocolError(f"{self.path} answered a hello with kind {kind}: no abid?")
        _check_protocol(answer)
        self.welcome = answer

    def _exchange(self, op: str, params: Object, timeout: float | None) -> Iterator[Object]:
        self._last_id = number = self._last_id + 1
        self.result = {}
        self._sock.settimeout(timeout)
        self._send(REQUEST, {**params, "id": number, "op": op})
        while True:
            kind, answer = self._frame()
            if kind == REFUSED:
                raise error_from(answer)
            if answer.get("id") != number:
                continue
            if kind == EVENT:
                yield _object(answer.get("event"), "event")
            elif kind == RESPONSE:
                if (problem := answer.get("error")) is not None:
                    raise error_from(_object(problem, "error"))
                self.result = _object(answer.get("result"), "result")
                return
            else:
                raise ProtocolError(f"the daemon sent kind {kind} in answer to a request")

    def _send(self, kind: int, message: Object) -> None:
        # Escaped to ASCII, so that names that are no UTF-8 (lone surrogates) pass unharmed.
        payload = json.dumps(message, separators=(",", ":")).encode("ascii")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ProtocolError(f"a request of {len(payload)} bytes is too large")
        try:
            self._sock.sendall(HEADER.pack(len(payload), kind, CODEC_JSON, 0) + payload)
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            pass  # it hung up, maybe after saying why: reading tells

    def _frame(self) -> tuple[int, Object]:
        """The next frame's kind and object."""
        length, kind, codec, descriptors = HEADER.unpack(self._take(HEADER.size))
        if length > PAYLOAD_BYTES_MAX or codec != CODEC_JSON or descriptors:
            raise ProtocolError(f"what listens at {self.path} does not speak abi's protocol")
        try:
            message = json.loads(self._take(length))
        except ValueError:
            raise ProtocolError(f"{self.path} sent a frame that is no JSON") from None
        return kind, _object(message, "frame")

    def _take(self, size: int) -> bytes:
        """Exactly `size` received bytes."""
        while len(self._received) < size:
            try:
                data = self._sock.recv(RECV_BYTES)
            except TimeoutError:
                raise self._silent() from None
            except OSError as problem:
                raise self._gone(problem.strerror or str(problem)) from None
            if not data:
                raise self._gone("it closed the connection")
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _silent(self) -> AbiError:
        return DaemonUnreachable(
            f"the daemon at {self.path} does not answer",
            hint="it may be stopped or stuck; SIGUSR1 makes it dump its stacks",
        )

    def _gone(self, why: str) -> AbiError:
        return DaemonUnreachable(
            f"the daemon at {self.path} went away: {why}",
            hint="`abi status` tells whether it is back, `abid start -d` starts it",
        )


def _dial_trusted(path: str, timeout: float) -> socket.socket:
    """Connect, and be sure that it is our own daemon or the system's.

    The directory is checked first: in `/tmp` anybody may have laid a socket that waits for
    our environment. Raises OSError and `Denied`.
    """
    if path == paths.SYSTEM_SOCKET:
        # Only root makes directories in /run, and the system daemon may run as any user.
        return transport.dial(path, timeout)
    paths.check_ours(os.path.dirname(path))
    sock = transport.dial(path, timeout)
    _, uid, _ = transport.peer_credentials(sock)
    if uid != os.getuid():
        sock.close()
        raise Denied(f"the daemon at {path} runs as uid {uid}, not as you")
    return sock


def _greet(sock: socket.socket, path: str, timeout: float) -> Control:
    control = Control(sock, path)
    try:
        control.greet(timeout)
    except BaseException:
        control.close()
        raise
    return control


def _hello() -> Object:
    return {
        "protocol": list(PROTOCOL),
        "features": [],
        "role": "control",
        "version": __version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "uid": os.getuid(),
        "pid": os.getpid(),
        "namespace": "default",
        "environment": "",
        "trace": os.urandom(16).hex(),
    }


def _check_protocol(welcome: Object) -> None:
    spoken = welcome.get("protocol")
    if not isinstance(spoken, list) or not spoken or spoken[0] != PROTOCOL[0]:
        raise VersionMismatch(
            f"the daemon is abi {welcome.get('version', '?')} with protocol {spoken}, "
            f"this is abi {__version__} with protocol {list(PROTOCOL)}",
            hint="upgrade the older of the two",
        )


def _object(value: Any, what: str) -> Object:
    if not _is_object(value):
        raise ProtocolError(f"the daemon sent a {what} that is no object")
    found: Object = value
    return found


def _is_object(value: object) -> bool:
    return isinstance(value, dict)
