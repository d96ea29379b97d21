"""For all tests, in every process that runs them."""

from __future__ import annotations

import signal

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and with them all programs that they
# start to see what Ctrl-C does there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
