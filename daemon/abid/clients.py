"""Who comes in through the socket: checked by uid, greeted once, then a program's session or a control connection."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from abi.errors import AbiError, Denied, ProtocolError, VersionMismatch
from abi.transport import peer_credentials
from abi.version import __version__
from abi.wire.frames import FRAME_BYTES_MAX, GREETING_BYTES_MAX, JSON, Frame
from abi.wire.schema import PROTOCOL, Hello, Kind, Refused, Welcome
from abid.channel import Channel
from abid.control import ControlConnection
from abid.programs import ProgramSession, check_program
from abid.watches import LogWatch

if TYPE_CHECKING:
    from abid.node import Node

log = logging.getLogger(__name__)

GREETING_S = 5.0
"""How long a connection may say nothing: a client greets at once."""
CONNECTIONS_MAX = 1024
"""A reserve of descriptors must stay for workers and control."""
ACCEPTS_PER_TURN = 64

_hello_decoder = msgspec.json.Decoder(Hello)


class Listener:
    """Accepts on the daemon's socket."""

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self.node = node
        self._sock = sock
        self.connections: dict[Channel, Greeting] = {}
        sock.setblocking(False)
        node.loop.add_reader(sock.fileno(), self._on_connection)

    def _on_connection(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.error("a connection could not be accepted: %s", error.strerror)
                return
            if len(self.connections) >= CONNECTIONS_MAX:
                sock.close()
                continue
            Greeting(self, sock)

    def readers_of_ended_jobs(self) -> bool:
        """Whether somebody has not yet got all that a job said before it ended."""
        return any(
            isinstance(watch, LogWatch) and watch.job.end is not None
            for greeting in self.connections.values()
            if greeting.control is not None
            for watch in greeting.control.watches
        )

    def close(self) -> None:
        self.node.loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for channel, greeting in list(self.connections.items()):
            if greeting.control is not None:
                greeting.control.say_goodbye()
            channel.close_when_sent()


class Greeting:
    """A connection that has not said who it is yet."""

    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        self.listener = listener
        self.node = listener.node
        self.session: ProgramSession | None = None
        self.control: ControlConnection | None = None
        self.pid, self.uid, _ = peer_credentials(sock)
        self.channel = Channel(self.node.loop, sock, self._on_frame, self._on_closed, limit=GREETING_BYTES_MAX)
        listener.connections[self.channel] = self
        self._timeout: asyncio.TimerHandle | None = self.node.loop.call_later(GREETING_S, self._on_silence)

    def _on_silence(self) -> None:
        self.refuse(ProtocolError(f"no greeting within {GREETING_S:.0f} s"))

    def _on_closed(self, why: str) -> None:
        self.listener.connections.pop(self.channel, None)
        self.node.touch()
        if self._timeout is not None:
            self._timeout.cancel()
        if self.session is not None:
            self.session.on_channel_closed(self.channel, why)
        elif self.control is not None:
            self.control.on_closed()
        elif why:
            log.info("a connection of pid %d was closed: %s", self.pid, why)

    def _on_frame(self, frame: Frame, fds: list[int]) -> None:
        try:
            hello = self._decode(frame)
            self._check(hello)
            if hello.role == "session":
                self._open_session(hello)
            else:
                self._open_control()
        except AbiError as error:
            self.refuse(error)
        else:
            if self._timeout is not None:
                self._timeout.cancel()

    def _decode(self, frame: Frame) -> Hello:
        if frame.kind != Kind.HELLO or frame.codec != JSON:
            raise ProtocolError("a connection begins with HELLO, in JSON")
        # The version stands in front of all: whatever else a newer protocol says, it is refused by its number.
        try:
            words = json.loads(bytes(frame.payload))
            major = int(words["protocol"][0])
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise ProtocolError("HELLO is not readable") from None
        if major != PROTOCOL[0]:
            raise VersionMismatch(
                f"this daemon (abi {__version__}) speaks protocol {PROTOCOL[0]}, the client protocol {major}",
                hint="upgrade the older of the two",
            )
        try:
            return _hello_decoder.decode(frame.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"HELLO is not readable: {error}") from None

    def _check(self, hello: Hello) -> None:
        if self.uid != os.getuid() and not (self.node.system and is_in_our_group(self.uid)):
            raise Denied(f"this daemon serves uid {os.getuid()}; you are uid {self.uid}")
        if hello.role not in ("session", "control"):
            raise ProtocolError(f"there is no role {hello.role!r}; there are session and control")
        if hello.role == "session" and self.node.draining:
            raise AbiError("the daemon is stopping", code="busy", hint="try again when the next one has started")

    def _open_session(self, hello: Hello) -> None:
        program = check_program(hello.program)
        session = self.node.resume_session(hello)
        resumed = session is not None
        if session is None:
            session = self.node.open_session(hello, self.pid, self.uid, program)
        self.session = session
        self.channel.set_limit(FRAME_BYTES_MAX)
        config = self.node.config
        self._welcome(
            session=session.prefix.hex(),
            token=session.token,
            resumed=resumed,
            tasks_max=config.integer("queue.tasks_max"),
            bytes_max=config.integer("queue.bytes_max"),
        )
        session.attach(self.channel)
        session.port.pump()
        session.on_progress()

    def _open_control(self) -> None:
        self.control = ControlConnection(self.node, self.channel)
        self.channel.on_frame = self.control.on_frame
        self._welcome()

    def _welcome(self, **words: Any) -> None:
        node = self.node
        welcome = Welcome(
            PROTOCOL,
            __version__,
            node.identity.hex(),
            node.host,
            os.getpid(),
            str(node.runtime_dir),
            cpus=node.cpu_units,
            **words,
        )
        self.channel.send(Kind.WELCOME, msgspec.json.encode(welcome), codec=JSON)

    def refuse(self, error: AbiError) -> None:
        refused = Refused(error.code, error.message, error.hint)
        self.channel.send(Kind.REFUSED, msgspec.json.encode(refused), codec=JSON)
        self.channel.close_when_sent()


def is_in_our_group(uid: int) -> bool:
    """Whether this user is a member of the daemon's own group: in system mode those may submit, and trust each other."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return False
    return os.getgid() in os.getgrouplist(user.pw_name, user.pw_gid)
