"""``python -P -m abi_worker RUNTIME_DIR --socket FD --lock FD``: a zygote. Started by abid, never by hand."""

from __future__ import annotations

import sys

USAGE = "usage: python -P -m abi_worker RUNTIME_DIR --socket FD --lock FD (abid starts this; it is of no use by hand)"


def parse(arguments: list[str]) -> tuple[int, int]:
    """The two descriptors. The directory stands in the command line for people, and for who looks for leftovers."""
    if len(arguments) != 5 or arguments[1] != "--socket" or arguments[3] != "--lock":
        raise SystemExit(USAGE)
    try:
        return int(arguments[2]), int(arguments[4])
    except ValueError:
        raise SystemExit(USAGE) from None


def main() -> None:
    socket_fd, lock_fd = parse(sys.argv[1:])
    from abi_worker.zygote import run_zygote

    run_zygote(socket_fd, lock_fd)


if __name__ == "__main__":
    main()
