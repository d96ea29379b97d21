"""Who may run here: two locks in the runtime directory, one in the state directory.

``abid.lock`` is taken before the socket is bound, since binding alone would steal a live daemon's address. It holds the
pid of its owner, for the second one's message. ``zygote.lock`` is the previous daemon's estate: its zygotes and workers
inherit the open file, so it is free only when the last of them is gone, and a new daemon runs nothing before that.
``state.lock`` keeps two daemons with different sockets from sharing one identity, and so from naming two tasks alike.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from abi.errors import AbiError

ESTATE_WAIT_S = 10.0
"""How long the processes of a daemon that was killed may take to go: they are killed at once, so this is generous."""
HOLDER_WAIT_S = 0.5
"""How long who took a lock may take to write its pid: two system calls, on a host that has much else to do."""


class AlreadyRunning(AbiError):
    """Another daemon holds the lock of this runtime directory."""

    code = "refused"


def take(runtime_dir: Path) -> int:
    """The descriptor that holds ``abid.lock``; it is released when it closes. Raises AlreadyRunning."""
    return _take(
        runtime_dir / "abid.lock",
        "abid already runs here: pid {holder}, in {folder}",
        "stop it with `abid stop`, or give this one its own ABI_RUNTIME_DIR and ABI_STATE_DIR",
    )


def take_state(state_dir: Path) -> int:
    """The descriptor that holds ``state.lock``. Raises AlreadyRunning."""
    return _take(
        state_dir / "state.lock",
        "another abid keeps its state in {folder}: pid {holder}",
        "give this one its own ABI_STATE_DIR, as it has its own socket",
    )


def _take(path: Path, message: str, hint: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(fd)
        os.close(fd)
        raise AlreadyRunning(message.format(holder=holder, folder=path.parent), hint=hint) from None
    rename_owner(fd)
    return fd


def _holder(fd: int) -> str:
    """The pid in the lock, which its owner writes a moment after it took it; until then it is that of one long gone."""
    deadline = time.monotonic() + HOLDER_WAIT_S
    while True:
        pid = os.pread(fd, 64, 0).decode("ascii", "replace").strip()
        if (pid.isdecimal() and os.path.exists(f"/proc/{pid}")) or time.monotonic() > deadline:
            return pid or "unknown"
        time.sleep(0.002)


def rename_owner(fd: int) -> None:
    """Write this process's pid into the lock, after a fork into the background."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def take_estate(runtime_dir: Path, wait_s: float = ESTATE_WAIT_S) -> int:
    """The descriptor that holds ``zygote.lock``, for zygotes to inherit, once the last daemon's processes are gone.

    Raises AlreadyRunning if they are still there after ``wait_s`` seconds. Called before the loop runs: it blocks.
    """
    fd = os.open(runtime_dir / "zygote.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise AlreadyRunning(
                    f"processes of an earlier daemon still run after {wait_s:.0f} s in {runtime_dir}",
                    hint="look for `abi_worker` with ps and end them; nothing was started",
                ) from None
            time.sleep(0.002)
