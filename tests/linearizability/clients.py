"""Clients that ask daemons about names, over their Unix sockets, and note what they saw by one monotonic clock."""

from __future__ import annotations

import array
import fcntl
import random
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from abi import transport
from abi.control import Control
from abi.errors import AbiError, DaemonUnreachable
from tests.linearizability.checker import Operation
from tests.linearizability.history import LOST, Note
from tests.linearizability.names import Asked, Claim, Claimed, Get, Held, Nobody, Release, Released, Told

REQUEST_S: Final = 1.0
"""After which a daemon gives up what it was asked for: ``network.request_timeout_ms`` of those that are asked here."""
ANSWER_S: Final = 1.5
"""After which a client gives up its daemon; only one that is stopped takes longer than the daemon's own limit."""
GREETING_S: Final = 0.5
PAUSE_S: Final = 0.002
"""Between two requests of one client: the machine has other things to do."""
AWAY_S: Final = 0.02
"""Until a daemon that is down is dialled again."""
NOT_MEMBER: Final = "not_member"
TOLD_NOTHING: Final = frozenset(
    {LOST, "unavailable", "node_unreachable", "request_timed_out", "circuit_open", "busy", "left"}
)
"""Codes of errors after which it may or may not have come to pass. Any other is a fault."""


class Away(Exception):
    """The daemon was not reached, or is in no cluster; nothing was asked."""


class Line:
    """One client's way to one daemon, at its socket ``path``. What it asks is noted in ``notes``. ``may_leave``: the
    daemon may say that it is in no cluster."""

    def __init__(self, who: str, host: int, path: str, notes: list[Note], *, may_leave: bool = False) -> None:
        self.who = who
        self._may_leave = may_leave
        self._host, self._path, self._notes = host, path, notes
        self._socket: Any = None
        self._control: Control | None = None
        self._life = 0

    def connect(self) -> Control:
        """Raises Away."""
        if self._control is None:
            try:
                self._socket = transport.dial(self._path, GREETING_S)
                self._control = Control(self._socket, self._path)
                self._control.greet(GREETING_S)
                self._life = int(self._control.welcome["pid"])
            except (OSError, AbiError) as error:
                self.close()
                raise Away(str(error)) from None
        return self._control

    @property
    def is_unread(self) -> bool:
        """Whether what was asked lies in the daemon's socket, and the daemon has not read it. Not of a line that has
        given its daemon up."""
        found = array.array("i", [0])
        try:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, found)
        except (OSError, ValueError):
            return False
        return found[0] > 0

    def ask(self, asked: Asked) -> Told | None:
        """None: nobody knows what came of it. Raises Away, and AbiError where the answer makes no sense."""
        control = self.connect()
        called = time.monotonic_ns()
        told: Told | None = None
        why = ""
        try:
            told = _told(asked, _request(control, asked))
        except AbiError as error:
            told = _told_by(error)
            if told is None:
                why = error.code
                if why == NOT_MEMBER and self._may_leave:
                    raise Away(error.message) from None
                if why not in TOLD_NOTHING:
                    raise
            if isinstance(error, DaemonUnreachable):
                self.close()
        ended = time.monotonic_ns()
        self._notes.append(Note(Operation(self.who, asked, told, called, ended), self._host, self._life, why))
        return told

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None


def _request(control: Control, asked: Asked) -> dict[str, Any]:
    match asked:
        case Claim(name, owner):
            return control.request("name-claim", answer_timeout=ANSWER_S, name=name, owner=owner)
        case Release(name, owner):
            return control.request("name-release", answer_timeout=ANSWER_S, name=name, owner=owner)
        case Get(name):
            return control.request("name-get", answer_timeout=ANSWER_S, name=name)


def _told(asked: Asked, answer: dict[str, Any]) -> Told:
    match asked:
        case Claim():
            return Claimed(int(answer["epoch"]))
        case Release():
            return Released()
        case Get():
            return Held(str(answer["owner"]))


def _told_by(error: AbiError) -> Told | None:
    """What an error says about the name, if it does."""
    if error.code == "taken":
        return Held(error.message.rpartition(" is held by ")[2])
    return Nobody() if error.code == "unknown" else None


class Client(threading.Thread):
    """Asks one thing after the other, drawn by lot, until it is ended. ``broke`` is what ended it before."""

    def __init__(self, line: Line, names: Sequence[str], seed: int) -> None:
        super().__init__(name=line.who, daemon=True)
        self._line, self._names = line, names
        self._lots = random.Random(f"{seed} {line.who}")
        self._ending = threading.Event()
        self.broke: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ending.wait(PAUSE_S):
                try:
                    self._line.ask(self._drawn())
                except Away:
                    self._ending.wait(AWAY_S)
        except BaseException as error:
            self.broke = error
        finally:
            self._line.close()

    def _drawn(self) -> Asked:
        name, who, lot = self._lots.choice(self._names), self._line.who, self._lots.random()
        return Get(name) if lot < 0.4 else Claim(name, who) if lot < 0.75 else Release(name, who)

    def end(self) -> None:
        self._ending.set()


@contextmanager
def asking(
    paths: Sequence[str], names: Sequence[str], each: int, seed: int, *, may_leave: bool = False
) -> Iterator[list[Note]]:
    """So many clients at each daemon ask about these names meanwhile. What they saw is complete at the end; raises
    what broke one of them."""
    notes: list[Note] = []
    clients = [
        Client(Line(f"c{host}{letter}", host, path, notes, may_leave=may_leave), names, seed)
        for host, path in enumerate(paths)
        for letter in "abcdefgh"[:each]
    ]
    for client in clients:
        client.start()
    try:
        yield notes
    finally:
        for client in clients:
            client.end()
        for client in clients:
            client.join()
    for client in clients:
        if client.broke is not None:
            raise client.broke
