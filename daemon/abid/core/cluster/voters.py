"""Which hosts vote: one of up to two, three of up to six, five of seven and more; the others learn.

An even number would bear no more losses than the odd one below it, and more than five would make every write wait for
more disks than a cluster of some hundred hosts gains by it. A dead voter is replaced and never merely dropped: with one
voter fewer the next loss would be the one too many. One change at a time (thesis, 4.1), and nobody votes who does not
have the log yet (thesis, 4.2.1): a majority that waits for a newcomer to catch up agrees on nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from abid.core.raft.change import Proposal
from abid.core.raft.configuration import Change, ChangeKind, Configuration
from abid.core.raft.quorum import Vote, counted_by_both

FEW_MAX: Final = 2
SOME_MAX: Final = 6


class Standing(msgspec.Struct, frozen=True):
    """What the leader knows of one member. Who has ``caught_up`` has all in its log that is committed."""

    alive: bool
    caught_up: bool


def wanted_count(hosts: int) -> int:
    """How many voters a cluster of so many hosts has."""
    if hosts <= FEW_MAX:
        return min(1, hosts)
    return 3 if hosts <= SOME_MAX else 5


def are_majority(configuration: Configuration, numbers: Collection[int]) -> bool:
    """Whether these could have the cluster agree on something by themselves; while voters change, by both majorities.
    Where no voters are known, nobody could."""
    votes = dict.fromkeys(numbers, True)
    won = counted_by_both(configuration.voters, configuration.outgoing, votes) is Vote.WON
    return won and bool(configuration.voters)


def next_change(configuration: Configuration, members: Mapping[int, Standing], leader: int) -> Proposal | None:
    """The next step towards the voters that these members should have, or None when there is nothing to do now.

    ``members`` are those that the cluster has agreed on, by number; they become learners first.
    """
    if configuration.is_joint:
        return None  # it is left by itself
    gone = sorted(configuration.members - set(members))
    newcomers = sorted(set(members) - configuration.members)
    if newcomers:
        return Proposal((Change(ChangeKind.LEARNER, newcomers[0]),))
    voters = [number for number in sorted(configuration.voters) if number not in gone]
    ready = [
        number
        for number, standing in sorted(members.items())
        if number in configuration.learners and standing.alive and standing.caught_up
    ]
    wanted = wanted_count(len(members))
    if len(configuration.voters) < wanted and ready:
        return Proposal((Change(ChangeKind.VOTER, ready[0]),))
    for number in gone:
        if configuration.voters != frozenset({number}) or ready:  # somebody has to be left
            dead = [voter for voter in voters if not members[voter].alive]
            return _replace(configuration, number, ChangeKind.REMOVE, ready, wanted, dead)
    if len(voters) > wanted:
        # The one that is dead, or that joined last; the leader stays, since its leaving costs an election.
        number = max((v for v in voters if v != leader), key=lambda v: (not members[v].alive, v))
        return Proposal((Change(ChangeKind.LEARNER, number),))
    for number in voters:
        if not members[number].alive and ready:
            return _replace(configuration, number, ChangeKind.LEARNER, ready, wanted, [])
    return None


def _replace(
    configuration: Configuration, number: int, kind: ChangeKind, ready: list[int], wanted: int, dead: list[int]
) -> Proposal:
    """It goes, and in the same step, through a joint configuration, another comes, if it is needed and there is one.
    If there is none, so many of the ``dead`` give up their votes that the living are a majority without it."""
    steps = [Change(kind, number)]
    if number not in configuration.voters:
        return Proposal(tuple(steps))
    left = len(configuration.voters) - 1
    if len(configuration.voters) <= wanted and ready:
        steps.insert(0, Change(ChangeKind.VOTER, ready[0]))
        left += 1
    living = left - len(dead)
    for voter in dead:
        if 2 * living > left:
            break
        steps.append(Change(ChangeKind.LEARNER, voter))
        left -= 1
    return Proposal(tuple(steps))
