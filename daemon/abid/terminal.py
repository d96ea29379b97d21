"""Whether a hang-up means that the terminal of a foreground daemon is gone, or is a word to read the configuration.

The kernel takes the controlling terminal from every process of a session when it hangs up (credentials(7)), so that
``/dev/tty`` can no longer be opened. Who started us under nohup ignored the signal, and wants us to go on.
"""

from __future__ import annotations

import os
import signal


class Terminal:
    """The controlling terminal of this process as it was at the start. Made before SIGHUP gets its handler."""

    def __init__(self) -> None:
        self.is_ours = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and is_there()
        """Whether we end with it."""

    @property
    def is_gone(self) -> bool:
        return self.is_ours and not is_there()


def is_there() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
