"""Memory with a descriptor and no name: it cannot leak, whoever dies, and needs no room in ``/dev/shm``.

Sealed against shrinking and growing, so a reader that has checked the size once can never be killed by SIGBUS; not
sealed against writing, since the daemon is to recycle segments later. Source: memfd_create(2), fcntl(2) "File Sealing".

Mapped without keeping a descriptor: a program may hold as many large values as it has memory for, not as many as it may
open files (1024 by default, nearly everywhere). Before Python 3.13 the module ``mmap`` keeps a duplicate for as long as
the mapping lives, so there the C library is called.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

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
    return _map(fd, size)


def _map(fd: int, size: int) -> memoryview:
    import ctypes

    map_, unmap = _calls()
    address = map_(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # Every view, and every slice of one, refers to this array; the memory goes with the last of them. Its length is
    # rounded up, and cut by the view, since ctypes makes a class for every length.
    whole = (ctypes.c_char * (1 << (size - 1).bit_length())).from_address(address)
    weakref.finalize(whole, unmap, address, size).atexit = False
    return memoryview(whole).cast("B")[:size].toreadonly()


_mmap_and_munmap: tuple[Callable[..., Any], Callable[..., Any]] | None = None


def _calls() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Made at their first use: ctypes takes some milliseconds to load."""
    global _mmap_and_munmap
    if _mmap_and_munmap is None:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        map_, unmap = library.mmap, library.munmap
        map_.restype = ctypes.c_void_p
        map_.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        _mmap_and_munmap = map_, unmap
    return _mmap_and_munmap
