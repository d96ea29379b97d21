"""Ports on loopback that are bound later: one place for all tests, so that no two of them are given the same."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from typing import Final

EACH: Final = 16
"""Of a process, which needs no more at a time."""
_numbers = itertools.cycle(range(EACH))


def free_tcp_port() -> int:
    return _free(socket.SOCK_STREAM)


def free_udp_port() -> int:
    return _free(socket.SOCK_DGRAM)


def _free(kind: socket.SocketKind) -> int:
    """None that the kernel gives to whoever asks for any (from 32768 on), nor one that another process of these tests
    takes. Raises OSError."""
    for _ in range(EACH):
        port = 20_000 + (os.getpid() * EACH + next(_numbers)) % 12_000
        with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError(f"all {EACH} ports of this process are taken")
