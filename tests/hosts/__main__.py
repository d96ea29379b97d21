"""Whether this machine can have hosts for tests, in one line; what dead runs left is removed. Exit code 1: no."""

from __future__ import annotations

import sys

from tests.hosts import kernel


def main() -> int:
    missing = kernel.why_not()
    if missing:
        print(f"hosts for tests: none, {missing}")
        return 1
    removed = kernel.remove_leftovers()
    loss = kernel.why_no_loss()
    print(f"hosts for tests: yes; packets lost one way: {f'no, {loss}' if loss else 'yes'}; removed: {len(removed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
