"""Who is cut off from most others does not speak for them when it comes back."""

from __future__ import annotations

import pytest

from abid.core.membership.messages import State
from tests.core.membership.simulation import World
from tests.core.membership.test_simulation import everybody


@pytest.mark.parametrize("seconds", [15, 20, 60])
@pytest.mark.parametrize(
    ("count", "cut"), [(3, 1), (4, 2), (5, 1), (7, 1), (7, 2), (7, 3), (20, 1), (20, 4), (40, 1), (40, 4), (40, 18)]
)
def test_when_a_smaller_side_comes_back_nobody_of_the_greater_one_dies_of_its_word(
    count: int, cut: int, seconds: int
) -> None:
    world = World(count, seed=count)
    few = set(range(1, cut + 1))
    many = set(world.hosts) - few
    world.at(5, world.partition, few)
    world.at(5 + seconds, world.heal)
    world.run(65 + seconds)
    died = {(by, of) for _, by, of, state in world.tally.changes if state == State.DEAD}
    if seconds == 60 and count < 20:
        assert died >= {(by, of) for by in many for of in few}, "it was for long enough"
        assert died >= {(by, of) for by in few for of in many}, "also of the smaller side's view"
    assert not {(by, of) for by, of in died if by in many and of in many}
    assert everybody(world, State.ALIVE)


def test_who_is_dead_beyond_doubt_is_told_of_as_dead() -> None:
    """Two of ten die at once; a third, who was away, hears it when it comes back, and looks for nobody first."""
    world = World(10, seed=1)
    world.at(5, world.power_off, 1)
    world.at(5, world.power_off, 2)
    world.at(6, world.kill, 3)
    world.at(60, world.start_again, 3)
    world.run(63)
    told = {of for at, by, of, state in world.tally.changes if by == 3 and at > 60 * 10**9 and state == State.DEAD}
    assert told == {1, 2}


def test_the_last_two_of_seven_find_each_death_themselves() -> None:
    world = World(7, seed=1)
    for number in range(3, 8):
        world.at(5, world.power_off, number)
    world.run(60)
    for number in (1, 2):
        members = world.hosts[number].membership.members
        assert [of for of, member in members.items() if member.state == State.DEAD] == [3, 4, 5, 6, 7]
        assert members[3 - number].state == State.ALIVE
