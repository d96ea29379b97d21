"""What `abi network status` says of a member and of those it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from abid.cluster.refusal import Code

if TYPE_CHECKING:
    from abid.cluster.member import Member
    from abid.core.cluster.facts import Member as Known


def shown(member: Member) -> dict[str, Any]:
    """All of it; ``about.of_none`` has what is the same for a host that is no member."""
    consensus, facts = member.consensus, member.consensus.facts
    raft = consensus.raft
    leader = facts.members.get(consensus.leader)
    us = member.credentials.subject  # the facts of a newcomer name no cluster yet
    return {
        "cluster": us.cluster,
        "incarnation": us.incarnation,
        "number": member.number,
        "role": raft.role.value,
        "term": raft.term,
        "leader": None if leader is None else leader.node,
        "voters": sorted(member.node_of(number) or str(number) for number in consensus.configuration.all_voters),
        "election_ms": list(consensus.election_ms),
        "applied": raft.log.applied,
        "committed": raft.log.committed,
        "certificate_ends_ms": round(member.credentials.not_after * 1000),
        "told_removed": member.removal.told_by,
        "notes": [
            *consensus.notes(),
            *member.listening.notes(),
            *member.twins.notes(),
            *member.strays.notes(),
        ],
        "refused": dict(member.peers.refusals),
        "nodes": [_one(member, known) for known in facts.members.values()],
    }


def _one(member: Member, known: Known) -> dict[str, Any]:
    consensus, places = member.consensus, _places_of(member, known)
    is_us = known.node == member.node
    return {
        "id": known.node,
        "number": known.number,
        "name": known.name,
        **member.vetting.about(known.node),
        "address": next(iter(places), ""),
        "addresses": list(places),
        "state": state_of(member, known),
        "connected": is_us or known.node in member.peers.connected,
        "breaker": None if is_us else member.reach.breakers.described(known.node),
        "voter": known.number in consensus.configuration.all_voters,
        "leader": known.number == consensus.leader,
        "joined_ms": known.joined_ms,
    }


def state_of(member: Member, known: Known) -> str:
    """alive, suspect, dead; stopped, by somebody who may start it again; left, by force; or other_incarnation."""
    if member.strays.has(known.node):
        return str(Code.OTHER_INCARNATION)
    state = member.health.state_of(known.number)
    if state == "left":
        return "left" if known.node in member.gone else "stopped"
    return state


def _places_of(member: Member, known: Known) -> tuple[str, ...]:
    """Where others dial it; of this host we know better than the cluster does."""
    return member.listening.told if known.number == member.number else known.addresses
