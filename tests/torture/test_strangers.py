"""Who must not come in, at its smallest: each kind is refused by its name, and nothing is lost or left.

Times and elections are told and not held here, as in ``test_cluster``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.torture import strangers
from tests.torture.scenario import Options
from tests.torture.strangers import Rounds, Stage, figures_of

TOLD = {"×", "changes of term, leader, voters or members"}


def test_each_kind_is_refused_and_nothing_is_lost(needs_hosts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "ROUND_S", 0.05)
    with strangers.stage(is_idle=False) as scene:
        agreed = members_of(scene)
        figures = strangers.knocked(scene, Options(1, 0, 1, print))
        assert members_of(scene) == agreed
    held = [figure for figure in figures if figure.bound is not None and not TOLD & {figure.unit, figure.name}]
    assert len(held) == 3
    assert [figure for figure in held if not figure.holds] == []


def members_of(scene: Stage) -> list[Any]:
    """Voters and members, as each member sees them. On a busy machine another may come to lead."""
    return [(voters, members) for _, _, voters, members in scene.agreed()]


def test_a_program_that_waits_longer_than_twice_as_long_shows() -> None:
    rounds = Rounds([100, 100, 100], [190, 900, 210], made=3, refused=Counter(busy=3), seconds=1)
    (ratio,) = [figure for figure in figures_of("any", rounds) if figure.bound is not None]
    assert (ratio.value, ratio.fails) == (2.1, True), "one bad moment of three is the machine's, two are not"
    rounds.attacked_us[2] = 200
    (ratio,) = [figure for figure in figures_of("any", rounds) if figure.bound is not None]
    assert (ratio.value, ratio.fails) == (2.0, False)
