"""Whether this machine can have hosts for tests, in one line; what dead runs left is removed. Exit code 1: no."""

from __future__ import annotations

import sys

from tests.hosts import kernel


def main() -> int:
    said = kernel.in_words()
    if kernel.why_not():
        print(said)
        return 1
    print(f"{said}; removed: {len(kernel.remove_leftovers())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
