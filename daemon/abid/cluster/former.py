"""Members of the past: they show certificates that are good for weeks, and are let in by nobody and have no say.

The facts keep who each number was. Two things stand against shutting everybody out whom they do not name:

1. A voter whose removal was agreed on counts until the voters have changed, and nobody can agree on that without it.
2. Whoever leads us may have joined while we were away: the facts of a host that is behind do not name it yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.errors import ProtocolError
from abid.core.cluster.voters import are_majority

if TYPE_CHECKING:
    from abid.cluster.member import Member


def is_dispensable(member: Member, node: str) -> bool:
    """Whether the others that live are enough to have the voters change."""
    configuration = member.consensus.configuration
    others = frozenset(number for number in configuration.all_voters if member.known_as(number) != node)
    if others == configuration.all_voters:
        return True
    return are_majority(configuration, [number for number in others if member.is_alive(number)])


def may_speak_as(member: Member, number: int, node: str) -> bool:
    """Whether what this node says in Raft as this member is to be heard. Raises ProtocolError if it is another's."""
    facts = member.consensus.facts
    known = facts.node_of(number)
    if known is None:
        return number >= facts.next_number and not facts.has_left(node)
    if known != node:
        raise ProtocolError(f"node {node} speaks for member {number}, which is {known}")
    return number in facts.members or number in member.consensus.configuration.members
