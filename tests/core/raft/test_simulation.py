"""A thousand runs of a cluster in which everything goes wrong, and what must hold in each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.raft.faults import FAULTS
from tests.core.raft.run import run

BLOCKS = 20
SEEDS = 50
"""In each block."""
FAULT_SEEDS = 400
RARE = {
    "a_change_begins_while_another_is_under_way": 53,
    "a_restored_disk_comes_back_as_the_voter_it_was": 52,
    "a_snapshot_is_taken_in_over_a_newer_log": 33,
    "answers_of_an_older_term_are_counted": 18,
    "heartbeats_leave_in_a_term_that_is_not_stored": 314,
    "votes_of_another_election_are_counted": 122,
}
"""Where the search for a fault begins, if not at 0: the first seed that found it. Where the simulation has come to draw
otherwise, the search only takes longer."""
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_must_hold_holds(block: int) -> None:
    led = committed = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        try:
            properties = run(seed).properties
        except Exception as error:
            error.add_note(f"seed {seed}: ./dev torture raft --seeds 1 --first {seed} --trace")
            raise
        led += len(properties.leaders)
        committed += properties.acknowledged
    assert led > 6 * SEEDS, "many elections were held"
    assert committed > 12 * SEEDS, "and much was agreed on"


def test_the_same_seed_gives_the_same_run() -> None:
    """In processes that do not agree on hashes: no set or dictionary may decide anything."""
    code = "from tests.core.raft.run import run; print(*[run(seed).trace for seed in (7, 8, 9)])"
    traces = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(traces[0]) > 10_000


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    first = RARE.get(name, 0)
    for seed in range(first, first + FAULT_SEEDS):
        try:
            run(seed)
        except AssertionError:  # ours, or one of the rules' own
            return
    pytest.fail(f"{FAULT_SEEDS} runs from {first} on did not find it")
