"""How long a leader's silence may last, by what links and disks take. The table is worked out by hand."""

from __future__ import annotations

import pytest

from abid.core.raft.interface import Settings
from abid.core.raft.patience import LONGEST, WRITES, Patience

TICK_S = 0.1
SETTINGS = Settings(election_ticks=4, quorum_ticks=8, heartbeat_ticks=2)


def settings(round_trips_s: list[float], writes_s: list[float]) -> Settings:
    patience = Patience(SETTINGS, TICK_S)
    for took_s in writes_s:
        patience.note_write(took_s)
    return patience.settings(round_trips_s)


@pytest.mark.parametrize(
    ("round_trips_s", "writes_s", "ticks"),
    [
        ([], [], 4),  # nothing is known: as in one building
        ([0.0002, 0.0004], [0.005], 4),
        ([0.04], [], 4),
        ([0.02], [0.02], 4),
        ([0.03], [0.02], 5),
        ([0.001, 0.05], [], 5),  # the slowest counts
        ([0.08], [], 8),
        ([], [0.001, 0.06, 0.06], 6),  # the median of the writes
        ([], [1.5, 0.001, 0.001], 4),  # one slow one says nothing
        ([0.15], [0.05], 20),
        ([3.0], [3.0], 20),  # never more
    ],
)
def test_a_timeout_is_ten_times_what_it_takes_to_agree(
    round_trips_s: list[float], writes_s: list[float], ticks: int
) -> None:
    assert settings(round_trips_s, writes_s).election_ticks == ticks


def test_the_times_that_go_with_it_are_stretched_alike_and_heartbeats_are_not() -> None:
    stretched = settings([0.1], [0.02])
    assert (stretched.election_ticks, stretched.quorum_ticks, stretched.rank_ticks) == (12, 24, 6)
    assert stretched.quorum_ticks <= 2 * stretched.election_ticks, "else a leader leads on that others have replaced"
    assert stretched.heartbeat_ticks == SETTINGS.heartbeat_ticks
    assert settings([9.0], []).election_ticks == LONGEST * SETTINGS.election_ticks


def test_what_was_slow_once_is_forgotten() -> None:
    patience = Patience(SETTINGS, TICK_S)
    for _ in range(WRITES):
        patience.note_write(0.1)
    assert patience.settings([]).election_ticks == 10
    for _ in range(WRITES // 2 + 1):
        patience.note_write(0.001)
    assert patience.settings([]) is SETTINGS
