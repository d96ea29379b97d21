"""Which hosts vote, step by step, as hosts come, go and die."""

from __future__ import annotations

import random

import pytest

from abid.core.cluster.voters import Standing, next_change, wanted_count
from abid.core.raft.change import Proposal
from abid.core.raft.configuration import Configuration

WELL = Standing(alive=True, caught_up=True)
DEAD = Standing(alive=False, caught_up=False)
BEHIND = Standing(alive=True, caught_up=False)


def step(configuration: Configuration, proposal: Proposal) -> Configuration:
    """As Raft carries it out, a joint configuration left by itself."""
    if proposal.is_joint:
        return configuration.enter_joint(proposal.changes, auto_leave=True).leave_joint()
    return configuration.simple(proposal.changes)


def settle(configuration: Configuration, members: dict[int, Standing], leader: int = 1) -> Configuration:
    """Until nothing is to be done. No step may leave fewer voters than both the ends of it should have."""
    for _ in range(250):
        proposal = next_change(configuration, members, leader)
        if proposal is None:
            return configuration
        configuration = step(configuration, proposal)
    raise AssertionError("it never comes to rest")


def well(*numbers: int) -> dict[int, Standing]:
    return dict.fromkeys(numbers, WELL)


@pytest.mark.parametrize(
    ("hosts", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 3), (7, 5), (8, 5), (100, 5)]
)
def test_how_many_vote(hosts: int, voters: int) -> None:
    assert wanted_count(hosts) == voters
    settled = settle(Configuration(voters=frozenset({1})), well(*range(1, hosts + 1)))
    assert len(settled.voters) == voters
    assert settled.members == set(range(1, hosts + 1))


def test_up_and_down_again() -> None:
    configuration = Configuration(voters=frozenset({1}))
    for hosts in (1, 2, 3, 7, 3, 2, 1):
        configuration = settle(configuration, well(*range(1, hosts + 1)))
        assert len(configuration.voters) == wanted_count(hosts), hosts
        assert 1 in configuration.voters, "the leader need not step down"
        assert configuration.members == set(range(1, hosts + 1))


def test_nobody_votes_before_it_has_caught_up() -> None:
    members = {1: WELL, 2: BEHIND, 3: BEHIND}
    settled = settle(Configuration(voters=frozenset({1})), members)
    assert (settled.voters, settled.learners) == ({1}, {2, 3})


def test_a_dead_voter_is_replaced_in_one_step() -> None:
    configuration = Configuration(voters=frozenset({1, 2, 3}), learners=frozenset({4}))
    members = {**well(1, 3, 4), 2: DEAD}
    proposal = next_change(configuration, members, 1)
    assert proposal is not None
    assert proposal.is_joint
    after = step(configuration, proposal)
    assert (after.voters, after.learners) == ({1, 3, 4}, {2})
    assert next_change(after, members, 1) is None


def test_a_dead_voter_that_nobody_can_replace_stays() -> None:
    configuration = Configuration(voters=frozenset({1, 2, 3}))
    assert next_change(configuration, {**well(1, 3), 2: DEAD}, 1) is None


def test_a_voter_that_left_goes_even_if_nobody_replaces_it() -> None:
    settled = settle(Configuration(voters=frozenset({1, 2, 3})), well(1, 3))
    assert settled.voters == {1}


def test_when_a_voter_leaves_a_dead_one_must_not_hold_up_the_rest() -> None:
    settled = settle(Configuration(voters=frozenset({1, 2, 3})), {1: WELL, 2: DEAD})
    assert (settled.voters, settled.learners) == ({1}, {2})


def test_the_last_voter_is_not_dropped_before_another_is_ready() -> None:
    configuration = Configuration(voters=frozenset({1}), learners=frozenset({2}))
    assert next_change(configuration, {2: BEHIND}, 1) is None
    assert settle(configuration, well(2)).members == {2}


def test_of_too_many_voters_a_dead_one_goes_first() -> None:
    configuration = Configuration(voters=frozenset({1, 2, 3, 4, 5}))
    settled = settle(configuration, {**well(1, 4, 5), 2: DEAD, 3: DEAD})
    assert settled.voters == {1, 4, 5}


def test_nothing_is_done_in_the_middle_of_a_change() -> None:
    joint = Configuration(voters=frozenset({1, 2, 4}), outgoing=frozenset({1, 2, 3}), auto_leave=True)
    assert next_change(joint, well(1, 2, 4, 5, 6, 7), 1) is None


@pytest.mark.parametrize("seed", range(200))
def test_whatever_comes_it_comes_to_rest_and_never_loses_a_majority(seed: int) -> None:
    """Hosts come, go and die at random; whatever votes in the end has a majority that lives."""
    lots = random.Random(seed)
    configuration = Configuration(voters=frozenset({1}))
    members, number = well(1), 1
    for _ in range(30):
        match lots.randrange(4):
            case 0 | 1:
                number += 1
                members[number] = WELL
            case 2 if len(members) > 1:
                del members[lots.choice([other for other in members if other != 1])]
            case 3:
                dead = [other for other in members if members[other] is DEAD]
                alive_voters = [v for v in configuration.voters if members.get(v) is WELL and v != 1]
                if len(alive_voters) > len(configuration.voters) // 2:
                    members[lots.choice(alive_voters)] = DEAD
                elif dead:
                    members[lots.choice(dead)] = WELL
        configuration = settle(configuration, members)
        assert configuration.members == set(members)
        alive = sum(1 for voter in configuration.voters if members[voter] is WELL)
        assert alive * 2 > len(configuration.voters)
        if all(standing is WELL for standing in members.values()):
            assert len(configuration.voters) == wanted_count(len(members))
