"""How a task in a worker and the test that submitted it speak to each other behind the runtime's back.

``Ear`` is the test's end, ``say`` the task's: one datagram a word, so nothing is torn, and a word said is heard even
if its task dies in the next instruction. ``hold`` keeps a task until the test says ``let_go``. Light to import, since
workers do.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from pathlib import Path

WAIT_S = 30


class Ear:
    """Hears what tasks say. Bound to a path, so that it needs no inheritance."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "ear")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(self.path)

    def hear(self, seconds: float = WAIT_S) -> str:
        """The next word. Raises TimeoutError."""
        self._socket.settimeout(seconds)
        return self._socket.recv(65536).decode()

    def hear_many(self, count: int) -> list[str]:
        return [self.hear() for _ in range(count)]

    def heard(self) -> Counter[str]:
        """All words that have come and were not heard yet."""
        words: Counter[str] = Counter()
        self._socket.setblocking(False)
        while True:
            try:
                words[self._socket.recv(65536).decode()] += 1
            except BlockingIOError:
                return words

    def close(self) -> None:
        self._socket.close()


def say(path: str, word: object) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(str(word).encode(), path)


def hold(gate: str) -> None:
    """Until ``let_go``. Ends by itself when the test has long failed."""
    deadline = time.monotonic() + WAIT_S
    while not os.path.exists(gate) and time.monotonic() < deadline:
        time.sleep(0.002)


def let_go(gate: str) -> None:
    Path(gate).touch()


def note(path: str, word: object) -> None:
    """One line more in a file, in one write: for counting starts, also across the death of everybody."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{word}\n".encode())
    finally:
        os.close(fd)


def notes(path: str) -> Counter[str]:
    try:
        return Counter(Path(path).read_text().split())
    except FileNotFoundError:
        return Counter()
