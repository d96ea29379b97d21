"""How often a leader looks whether the right hosts vote."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from abid.cluster.leading import LOOK_S, SETTLED_LOOK_S, Leading
from abid.core.raft.configuration import Configuration
from tests.daemon.fake_loop import Loop


class Member:
    """The leader of three that vote and one that learns; all are alive and have all that is committed."""

    def __init__(self) -> None:
        self.dead, self.behind, self.proposed, self.asked = set[int](), set[int](), list[bytes](), list[int]()
        self.consensus = SimpleNamespace(
            is_leader=True, may_change=True, raft=SimpleNamespace(number=1, term=1),
            facts=SimpleNamespace(members=dict.fromkeys(range(1, 5))),
            caught_up=lambda number: number not in self.behind,
            configuration=Configuration(voters=frozenset({1, 2, 3}), learners=frozenset({4})),
            propose_change=self.proposed.append,
        )  # fmt: skip

    def is_alive(self, number: int) -> bool:
        self.asked.append(number)
        return number not in self.dead


@pytest.mark.parametrize(
    ("dead", "behind", "holders", "waits_s"),
    [
        ((), (), (2, 3, 4), SETTLED_LOOK_S),
        ((), (3,), (2, 3, 4), LOOK_S),
        ((4,), (), (2, 3, 4), LOOK_S),
        ((3,), (), (2, 3, 4), LOOK_S),
    ],
)
def test_it_looks_again_soon_while_somebody_is_waited_for(
    dead: tuple[int, ...], behind: tuple[int, ...], holders: tuple[int, ...], waits_s: float
) -> None:
    loop, member = Loop(), Member()
    member.dead.update(dead)
    member.behind.update(behind)
    leading = Leading(cast(Any, member), cast(Any, loop))
    leading._holders.update(holders)
    leading.look()
    assert loop.delays[-1] == waits_s
    assert bool(member.proposed) == (3 in dead), "a dead voter is replaced"


def test_a_look_at_a_thousand_members_asks_once_about_each() -> None:
    """It is taken after each fact that is agreed on; asked about each for each, it took a second."""
    loop, member = Loop(), Member()
    member.consensus.facts.members = dict.fromkeys(range(1, 1001))
    member.consensus.configuration = Configuration(voters=frozenset(range(1, 6)), learners=frozenset(range(6, 1001)))
    leading = Leading(cast(Any, member), cast(Any, loop))
    leading._holders.update(range(2, 7))
    leading.look()
    assert sorted(member.asked) == list(range(2, 1001))
    assert loop.delays[-1] == SETTLED_LOOK_S
