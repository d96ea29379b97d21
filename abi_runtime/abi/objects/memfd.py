"""Memory with a descriptor and no name: it cannot leak, whoever dies, and needs no room in ``/dev/shm``.

Sealed against shrinking and growing, so a reader that has checked the size once can never be killed by SIGBUS; not
sealed against writing, since the daemon is to recycle segments later. Source: memfd_create(2), fcntl(2) "File Sealing".

Doubt: before Python 3.13 ``mmap`` keeps a duplicate of the descriptor for as long as the mapping lives, so ten thousand
views cost ten thousand descriptors there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Final

from abi.errors import ProtocolError
from abi.objects.blob import Blob

CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
"""One pwritev: a signal is answered within some 30 ms even in the middle of a gigabyte. Linux takes 2 GiB at most."""
PARTS_MAX: Final = 1024
"""Parts in one pwritev (IOV_MAX)."""
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(parts: Sequence[bytes | bytearray | memoryview]) -> Blob:
    """The parts, one behind the other, in a new sealed memfd. Raises OSError when there is no memory or descriptor."""
    fd = os.memfd_create("abi", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        size = _write(fd, [view for view in map(_bytes_of, parts) if view.nbytes])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return Blob(fd, size)


def _bytes_of(part: bytes | bytearray | memoryview) -> memoryview:
    view = memoryview(part)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _write(fd: int, views: list[memoryview]) -> int:
    """Bytes written: all of them."""
    at, first = 0, 0
    while first < len(views):
        batch: list[memoryview] = []
        room = CHUNK_BYTES_MAX
        for view in views[first : first + PARTS_MAX]:
            batch.append(view[:room])
            room -= batch[-1].nbytes
            if room <= 0:
                break
        written = os.pwritev(fd, batch, at)
        at += written
        while written:
            rest = views[first].nbytes - written
            if rest > 0:
                views[first] = views[first][written:]
                break
            written = -rest
            first += 1
    return at


def open_view(fd: int, size: int) -> memoryview:
    """A read-only view of the first ``size`` bytes; it keeps the memory alive, and the caller may close ``fd``.

    Raises ProtocolError for a descriptor that is no memfd sealed against shrinking, or that holds less than ``size``.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise ProtocolError("a payload's descriptor is not a memfd") from None
    if not seals & fcntl.F_SEAL_SHRINK:
        raise ProtocolError("a payload's memfd is not sealed against shrinking: reading it could kill the reader")
    held = os.fstat(fd).st_size
    if not 0 <= size <= held:
        raise ProtocolError(f"a payload's memfd holds {held} bytes, {size} were announced")
    if size == 0:
        return memoryview(b"")
    if sys.version_info >= (3, 13):
        return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False))
    return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ))
