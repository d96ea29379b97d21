"""A large payload on its way: one memfd and the number of its bytes that count."""

from __future__ import annotations

import os


class Blob:
    """Owns ``fd`` until ``close`` or ``detach``. ``size`` is in bytes."""

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def close(self) -> None:
        """Closes the descriptor; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def detach(self) -> int:
        """Hands the descriptor over to the caller, who closes it from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Blob of {self.size} bytes, {'closed' if self.fd < 0 else f'fd {self.fd}'}>"
