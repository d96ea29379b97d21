"""The long run: a million inputs in a few minutes."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.run import GROWTH_MAX_BYTES, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check-every", type=int, default=1000, help="inputs between two checks of the rules' state")
    arguments = parser.parse_args()
    found = run(arguments.inputs, arguments.seed, arguments.check_every)
    sizes = ", ".join(f"{size / (1 << 20):.1f}" for size in found.rss)
    print(
        f"{found.inputs:,} inputs in {found.seconds:.0f} s, seed {arguments.seed}: {found.connections:,} connections, "
        f"{found.refused:,} closed for what they said; {found.checks} checks; nothing raised, nothing unpickled; "
        f"resident after each quarter: {sizes} MiB"
    )
    if found.growth_bytes > GROWTH_MAX_BYTES:
        print(f"it grew by {found.growth_bytes / (1 << 20):.1f} MiB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
