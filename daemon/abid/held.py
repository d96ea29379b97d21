"""Large payloads that the daemon holds, and how many it may: each is an open file, and so is all else.

Without a limit one program with enough large objects takes every descriptor there is, and with them the other programs,
their workers and `abi status`. What comes above the limit is refused, by an end that says so.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from abi.objects.blob import Blob

DESCRIPTORS_PER_WORKER: Final = 8
"""Socket, two pipes, pidfd, its slot page; and what passes through while one is forked."""
CONNECTIONS: Final = 1024
OTHERS: Final = 1024
"""Zygotes, logs, and what one read of a socket may bring before it is looked at."""

_count = 0
_most = 1 << 30


class Held(Blob):
    """Owns a descriptor that came from outside."""

    __slots__ = ()

    def __init__(self, fd: int, size: int) -> None:
        global _count
        super().__init__(fd, size)
        _count += 1

    def close(self) -> None:
        global _count
        if self.fd >= 0:
            _count -= 1
        super().close()


def set_limit(processes_max: int) -> None:
    """Leave enough for workers, connections and control; where little is allowed, half."""
    global _most
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        allowed = os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 1 << 20
    _most = max(allowed // 2, allowed - DESCRIPTORS_PER_WORKER * processes_max - CONNECTIONS - OTHERS)


def too_many() -> str:
    """Why no more is taken in; nothing while there is room."""
    if _count <= _most:
        return ""
    return (
        f"{_most} large objects are held here, which is as many as this daemon may open files for (ulimit -n): "
        "let some go first"
    )
