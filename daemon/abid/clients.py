"""Who comes in through the socket: checked by uid, greeted once, then a program's session or a control connection."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import re
import resource
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from abi.errors import AbiError, Busy, Denied, ProtocolError, VersionMismatch
from abi.transport import peer_credentials
from abi.version import __version__
from abi.wire.codec import decode_greeting, encode_greeting
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
CONNECTIONS_MAX = 4096
"""At once, and never more than a quarter of the descriptors that we may have: workers need five each."""
SESSIONS_SHARE = 0.75
"""Of the connections, for programs: they are not sent away to make room, so some must be left for others."""
USERS_SHARE = 0.5
"""Of the programs, for each user of a daemon that serves several."""
ACCEPTS_PER_TURN = 64
ACCEPT_AGAIN_S = 0.1
"""When there is no descriptor for who knocks, we look again after this."""

SESSION_PREFIX = re.compile("[0-9a-f]{16}")


class Listener:
    """Accepts on the daemon's socket."""

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self.node = node
        self._sock = sock
        self.connections: dict[Channel, Greeting] = {}
        """By when they last said something, the longest silent first."""
        self._connections_max = min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._sessions_max = int(self._connections_max * SESSIONS_SHARE)
        sock.setblocking(False)
        node.loop.add_reader(sock.fileno(), self._on_connection)

    def _on_connection(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            if len(self.connections) >= self._connections_max:
                self._make_room()
            Greeting(self, sock)

    def _pause(self, error: OSError) -> None:
        """No descriptor is free, say. Whoever knocks keeps the socket readable, so we must look away for a while."""
        log.error("a connection could not be accepted: %s", error.strerror)
        fd = self._sock.fileno()
        self.node.loop.remove_reader(fd)
        self.node.loop.call_later(ACCEPT_AGAIN_S, self._unpause, fd)

    def _unpause(self, fd: int) -> None:
        if self._sock.fileno() == fd:  # else it was closed meanwhile
            self.node.loop.add_reader(fd, self._on_connection)

    def _make_room(self) -> None:
        """Whoever comes is heard, be there a thousand idle connections: `abi status` must work when all is full.

        The longest silent goes that loses nothing by it: a stranger, or a client of ours between two requests. Programs
        stay, and who follows a log or waits for a job.
        """
        for greeting in self.connections.values():
            if greeting.session is None and not (greeting.control and greeting.control.watches):
                greeting.refuse(
                    AbiError(f"{len(self.connections)} connections are open; this one was idle", code="busy")
                )
                greeting.channel.close("made room for another")
                return
        # All are programs or followers. The newest is not worse than they are, and the limit is far from the kernel's.

    def check_room_for_program(self, user: int) -> None:
        """Raises Busy when there are as many programs as may be."""
        users = [session.core.user for session in self.node.sessions.values()]
        share = USERS_SHARE if self.node.system else 1.0
        count, most, whose = len(users), self._sessions_max, ""
        if count < most and users.count(user) >= most * share:
            count, most, whose = users.count(user), int(most * share), " of yours"
        if count >= most:
            raise Busy(
                f"{count} programs{whose} are connected, which is as many as may be",
                hint="end some; the limit follows from how many files the daemon may open (ulimit -n)",
            )

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
            if greeting.session is None:  # programs may have more to hear than is queued
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
        self.channel.on_broken = self.refuse
        self._timeout: asyncio.TimerHandle | None = self.node.loop.call_later(GREETING_S, self._on_silence)
        if not self._is_welcome():
            self.refuse(Denied(f"this daemon serves uid {os.getuid()}; you are uid {self.uid}"))

    def _is_welcome(self) -> bool:
        """By uid, before a byte is read: strangers cost us nothing."""
        return self.uid == os.getuid() or (self.node.system and is_in_our_group(self.uid))

    def heard(self) -> None:
        """It said something: others are more idle."""
        self.listener.connections[self.channel] = self.listener.connections.pop(self.channel)

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
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            raise ProtocolError("HELLO is not readable") from None
        if major != PROTOCOL[0]:
            raise VersionMismatch(
                f"this daemon (abi {__version__}) speaks protocol {PROTOCOL[0]}, the client protocol {major}",
                hint="upgrade the older of the two",
            )
        try:
            return decode_greeting(frame.payload, Hello)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
            raise ProtocolError(f"HELLO is not readable: {error}") from None

    def _check(self, hello: Hello) -> None:
        try:  # names of files and variables may be other than text, and they are in ``program``
            msgspec.json.encode(msgspec.structs.replace(hello, program=None))
        except UnicodeEncodeError as error:
            raise ProtocolError(f"HELLO is not readable: {error}") from None
        if hello.role not in ("session", "control"):
            raise ProtocolError(f"there is no role {hello.role!r}; there are session and control")
        if hello.resume and not SESSION_PREFIX.fullmatch(hello.resume):
            raise ProtocolError(f"{hello.resume!r} is not the prefix of a session")
        if hello.role == "session" and self.node.draining:
            raise AbiError("the daemon is stopping", code="busy", hint="try again when the next one has started")

    def _open_session(self, hello: Hello) -> None:
        program = check_program(hello.program)
        session = self.node.resume_session(hello)
        resumed = session is not None
        if session is None:
            self.listener.check_room_for_program(self.uid)
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
        self.control = ControlConnection(self.node, self.channel, self.heard)
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
        self.channel.send(Kind.WELCOME, encode_greeting(welcome), codec=JSON)

    def refuse(self, error: AbiError) -> None:
        """Say what is wrong, and close. A program hears it in the middle of its session as well: it comes back once,
        and ends its session if that is refused too (``abi.returning``)."""
        refused = Refused(error.code, error.message, error.hint)
        self.channel.send(Kind.REFUSED, encode_greeting(refused), codec=JSON)
        self.channel.close_when_sent(error.message)


def is_in_our_group(uid: int) -> bool:
    """Whether this user is a member of the daemon's own group: in system mode those may submit, and trust each
    other."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return False
    return os.getgid() in os.getgrouplist(user.pw_name, user.pw_gid)
