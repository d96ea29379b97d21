"""A thousand runs of a cluster in which everything goes wrong, and what must hold in each."""

from __future__ import annotations

import pytest

from tests.core.raft.faults import FAULTS
from tests.core.raft.simulation import Cluster

BLOCKS = 20
SEEDS = 50
"""In each block."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_must_hold_holds(block: int) -> None:
    led = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        cluster = Cluster(seed)
        try:
            cluster.run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        led += len(cluster.leaders)
    assert led > SEEDS, "elections were held"


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [Cluster(7) for _ in range(2)]
    for cluster in runs:
        cluster.run()
    assert runs[0].trace == runs[1].trace
    assert len(runs[0].trace) > 50


# Found only by some thousands of seeds, or not yet: for the long run.
RARE = {
    "entries_of_earlier_terms_are_committed_by_counting",
    "votes_of_another_election_are_counted",
    "only_the_new_majority_decides_in_a_joint_configuration",
    "a_longer_log_of_an_older_term_wins",
    "a_read_is_answered_without_asking_whether_we_still_lead",
}


@pytest.mark.parametrize("name", sorted(set(FAULTS) - RARE))
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name](monkeypatch)
    for seed in range(400):
        try:
            Cluster(seed).run()
        except AssertionError:  # ours, or one of the rules' own
            return
    pytest.fail("400 runs did not find it")
