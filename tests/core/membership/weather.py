"""Two minutes in which anything may happen to anybody, by a seed; then all is well, and must be seen to be."""

from __future__ import annotations

from abid.core.membership.messages import State
from tests.core.membership.simulation import World

STORM_S = 120
CALM_S = 120
"""Long enough for the last suspicion to end, and for the dead to be looked for some ten times."""


def storm(seed: int) -> World:
    """The run of this seed. Raises AssertionError for what must not be at its end."""
    world = World(3, seed)
    count = world.random.choice((3, 3, 4, 5, 7, 12, 30))
    world = World(count, seed, loss=world.random.choice((0.0, 0.01, 0.05)))
    lots = world.random
    for _ in range(lots.randint(1, 12)):
        second, number = lots.uniform(1, STORM_S), lots.randint(1, count)
        match lots.randrange(7):
            case 0:
                world.at(second, world.kill, number)
                world.at(second + lots.uniform(0.1, 40), world.start_again, number)
            case 1:
                world.at(second, world.power_off, number)
                world.at(second + lots.uniform(1, 40), world.start_again, number)
            case 2:
                world.at(second, world.stop, number)
                world.at(second + lots.uniform(0.1, 40), world.cont, number)
            case 3:
                world.at(second, world.sleep, number, lots.randint(1, 40))
            case 4:
                side = lots.sample(sorted(world.hosts), lots.randint(1, count - 1))
                world.at(second, world.partition, side)
                world.at(second + lots.uniform(1, 40), world.heal)
            case 5:
                pairs = {(number, other) for other in world.hosts if lots.random() < 0.5}
                world.at(second, world.cut_one_way, pairs)
                world.at(second + lots.uniform(1, 40), world.heal)
            case 6:
                world.at(second, world.leave, number)
                world.at(second + lots.uniform(0.1, 40), world.start_again, number)
    world.run(STORM_S + 41)
    world.heal()
    world.loss = 0.0
    for number in world.hosts:
        world.cont(number)
        world.start_again(number)
    world.run(STORM_S + 41 + CALM_S)
    for number in world.hosts:
        states = world.states(number)
        assert set(states.values()) == {State.ALIVE}, f"all is well again, and yet {number} is held for {states}"
    for host in world.hosts.values():
        membership = host.membership
        assert membership.alive == count - 1
        assert not membership.dead
        assert len(membership.rounds) <= count
    assert world.tally.false_deaths == [], f"(when, by whom, who) {world.tally.false_deaths}"
    return world
