"""Unix stream sockets: bound and dialled at any path, with descriptors beside the bytes.

A socket's address holds 107 bytes of path. A longer one is reached through an open
descriptor of its directory, `/proc/self/fd/N/abid.sock`, which the kernel resolves while it
binds or connects; the descriptor is closed again at once.

Standard library only, since `abi status` goes through here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence

from abi.errors import ProtocolError

PATH_BYTES_MAX = 107  # sun_path has 108, one of them the final zero
BACKLOG = 512  # a burst of clients waits in the kernel instead of being turned away
# The kernel takes no more in one message (SCM_MAX_FD); room for all of them means that a
# truncated message can only be one that our own table of descriptors had no place for.
MESSAGE_FDS_MAX = 253

_CREDENTIALS = struct.Struct("3i")
_TIMEVAL = struct.Struct("ll")
_FD = struct.Struct("i")
# Plain integers: the module's own are enums, whose `|` and `&` cost a microsecond.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_CTRUNC)
_ANCILLARY_BYTES = socket.CMSG_SPACE(MESSAGE_FDS_MAX * _FD.size)


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0600, in blocking mode; its directory must exist.

    A socket that lies there already is removed, so **the caller holds the daemon's lock**:
    without it this would steal a live daemon's address. Anything else that lies there
    stays, and raises FileExistsError. Raises OSError.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of a socket's file is that of its inode before bind, less the umask: so
        # there is no moment at which others could connect.
        os.fchmod(sock.fileno(), 0o600)
        _reach(path, sock.bind)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def dial(path: str, timeout: float | None = None) -> socket.socket:
    """A connected socket, in blocking mode. `timeout` in seconds bounds the connecting only.

    Raises TimeoutError, FileNotFoundError, ConnectionRefusedError (nobody listens) or
    another OSError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A full backlog makes a non-blocking connect fail at once (EAGAIN, not
        # EINPROGRESS), so the limit is set where the kernel itself waits.
        _limit_sending(sock, timeout)
        _reach(path, sock.connect)
        _limit_sending(sock, None)
    except BlockingIOError:
        sock.close()
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout} s", path) from None
    except BaseException:
        sock.close()
        raise
    return sock


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Process id, user id and group id of the other side, as it was when it connected."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid


def recv_with_fds(sock: socket.socket, buffer: bytearray, fds: list[int]) -> bytes:
    """What is there, up to the size of `buffer` (b"" at the end); received descriptors are appended to `fds`.

    `buffer` is scratch space of the caller's: with `recv`, each call would allocate as much as it might receive, which
    above 128 KiB is three system calls and a page fault (mmap, mremap, munmap) for a frame of twenty bytes.

    They are close-on-exec and the caller's to close. Raises BlockingIOError like `recv`,
    and `ProtocolError` if some did not fit into this process, after closing those that did.
    """
    size, ancillary, flags, _ = sock.recvmsg_into([buffer], _ANCILLARY_BYTES, _CLOEXEC)
    received: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(payload) - len(payload) % _FD.size
            received.extend(fd for (fd,) in _FD.iter_unpack(payload[:whole]))
    if flags & _TRUNCATED:
        for fd in received:
            os.close(fd)
        raise ProtocolError(
            "descriptors sent beside a message were lost: this process has no room for them",
            hint="raise the limit of open files (ulimit -n)",
        )
    fds.extend(received)
    return bytes(memoryview(buffer)[:size])


def send_with_fds(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int]) -> int:
    """Send `data` with `fds` beside its first byte; the number of bytes that went.

    If any went then all descriptors did, so what remains is sent without them. `data` must
    not be empty: a stream socket carries no descriptors beside nothing. Raises ValueError
    for too many descriptors and OSError like `send`.
    """
    if not fds:
        return sock.send(data)
    if not data or len(fds) > MESSAGE_FDS_MAX:
        raise ValueError(f"{len(fds)} descriptors beside {len(data)} bytes")
    payload = struct.pack(f"{len(fds)}i", *fds)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, payload)])


def _reach(path: str, use: Callable[[str], None]) -> None:
    """Call `use` (bind or connect) with an address of `path` that fits."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        use(path)
        return
    directory, name = os.path.split(path)
    fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "exists and is no socket", path)
    os.unlink(path)


def _limit_sending(sock: socket.socket, timeout: float | None) -> None:
    """Bound each blocking connect and send; None is for ever (a zero timeval)."""
    microseconds = 0 if timeout is None else max(1, int(timeout * 1_000_000))
    value = _TIMEVAL.pack(*divmod(microseconds, 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
