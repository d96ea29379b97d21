"""``./dev torture raft``: as many runs of the simulation as one has time for, on all cores.

A seed that fails is told with what broke and the command that plays it again; with ``--trace`` that one says what
happened last.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.core.raft.run import play
from tests.core.raft.settling import describe
from tests.core.raft.simulation import Cluster

BLOCK: Final = 20
"""Seeds that a process takes at a time: a third of a second of work."""
PROGRESS_S: Final = 10.0
FAILURES_SHOWN_MAX: Final = 20
"""More say nothing new: whoever broke a rule sees it in the first."""
TRACE_SHOWN: Final = 60
"""Events before the end: a few elections."""


@dataclass
class Found:
    """Of some seeds. ``failed`` says what broke, by seed."""

    seeds: int = 0
    terms: int = 0
    committed: int = 0
    changes: int = 0
    replaced: int = 0
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        self.seeds += other.seeds
        self.terms += other.terms
        self.committed += other.committed
        self.changes += other.changes
        self.replaced += other.replaced
        self.failed |= other.failed

    def __str__(self) -> str:
        return (
            f"{self.terms:,} terms, {self.committed:,} entries committed, {self.changes:,} changes of members, "
            f"{self.replaced:,} restored disks"
        )


def run_block(block: tuple[range, int | None]) -> Found:
    seeds, nodes = block
    found = Found()
    for seed in seeds:
        cluster = Cluster(seed, nodes)
        try:
            play(cluster)
        except Exception as error:
            found.failed[seed] = f"{type(error).__name__}: {error}"
        found.seeds += 1
        found.terms += len(cluster.properties.leaders)
        found.committed += cluster.properties.acknowledged
        found.changes += len(cluster.properties.configurations)
        found.replaced += len(cluster.gone)
    return found


def blocks(first: int, count: int, nodes: int | None) -> Iterator[tuple[range, int | None]]:
    for begin in range(first, first + count, BLOCK):
        yield range(begin, min(begin + BLOCK, first + count)), nodes


def torture(first: int, count: int, nodes: int | None) -> int:
    """The exit code."""
    processes = min(len(os.sched_getaffinity(0)), -(-count // BLOCK))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return tell(pool.imap_unordered(run_block, blocks(first, count, nodes)), first, count, nodes)


def tell(results: Iterable[Found], first: int, count: int, nodes: int | None) -> int:
    """What fails, when it is found; how far it is, now and then; and the sum. The exit code."""
    found, start = Found(), time.monotonic()
    told = start
    for more in results:
        for seed, words in sorted(more.failed.items()):
            found.failed[seed] = words
            if len(found.failed) <= FAILURES_SHOWN_MAX:
                print(f"seed {seed}: {words}\n    {replay(seed, nodes)}", flush=True)
        found.add(more)
        if time.monotonic() - told >= PROGRESS_S:
            told = time.monotonic()
            rate = found.seeds / (told - start)
            left = f"{(count - found.seeds) / rate / 60:.1f} min to go"
            words = f"{found.seeds:,} of {count:,} seeds, {rate:.0f} a second, {len(found.failed)} failed, {left}"
            print(words, file=sys.stderr, flush=True)
    took = time.monotonic() - start
    print(f"raft: {found.seeds:,} seeds from {first:,} on, {found}; {took:.0f} s, {found.seeds / took:.0f} a second")
    if not found.failed:
        print("all that must hold held in each of them")
        return 0
    print(f"{len(found.failed):,} seeds failed: {', '.join(map(str, sorted(found.failed)[:FAILURES_SHOWN_MAX]))}")
    return 1


def replay(seed: int, nodes: int | None) -> str:
    return f"./dev torture raft --seeds 1 --first {seed}" + (f" --nodes {nodes}" if nodes else "") + " --trace"


def trace(seed: int, nodes: int | None) -> int:
    """One seed, and what happened at its end. The exit code."""
    cluster = Cluster(seed, nodes)
    words, code = "all that must hold held", 0
    try:
        play(cluster)
    except Exception as error:
        words, code = f"{type(error).__name__}: {error}", 1
    print(cluster.settings)
    for event in cluster.trace[-TRACE_SHOWN:]:
        print(event)
    print(describe(cluster))
    print(f"seed {seed}: {words}")
    return code


def at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev torture raft", description=__doc__)
    parser.add_argument("--seeds", type=at_least(1), default=10_000, metavar="N", help="how many (10,000)")
    parser.add_argument("--first", type=at_least(0), default=0, metavar="N", help="the first seed (0)")
    parser.add_argument(
        "--nodes", type=at_least(2), default=None, metavar="N", help="so many nodes; else 3 to 7 by lot"
    )
    parser.add_argument("--trace", action="store_true", help="play the first seed alone, and show how it ends")
    options = parser.parse_args(arguments)
    if options.trace:
        return trace(options.first, options.nodes)
    return torture(options.first, options.seeds, options.nodes)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
