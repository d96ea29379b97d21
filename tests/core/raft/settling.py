"""How a run ends: all is well again, one leads, everybody has everything; and then a few things that only a quiet
cluster shows."""

from __future__ import annotations

from typing import Final

from abid.core.raft.interface import Role
from tests.core.raft.properties import Broken
from tests.core.raft.simulation import Cluster, Node, has_majority

ROUNDS_MAX: Final = 400
"""Ticks of all: a hundred election timeouts, each of which elects somebody with a probability above a half."""
EXCHANGES: Final = 6
"""Messages come and go so often in a tick."""


def settle(cluster: Cluster) -> bool:
    """False where those who are gone for good took the majority with them: then nobody can settle it. Raises Broken."""
    cluster.blocked = set()
    cluster.paused.clear()
    for number in sorted(cluster.down):
        cluster.restart(number)
    for node in cluster.nodes.values():
        node.raft.use(cluster.settings)
    for _ in range(ROUNDS_MAX):
        pass_a_tick(cluster)
        if leader_of(cluster) is not None:
            break
        cluster.replace()
    else:
        if not all(has_majority(node.raft.configuration, cluster.gone) for node in cluster.nodes.values()):
            return False
        raise Broken(f"liveness: it does not settle: {describe(cluster)}")
    cluster.properties.look_at_logs([node.raft for node in cluster.nodes.values()])
    return True


def pass_a_tick(cluster: Cluster) -> None:
    for node in list(cluster.nodes.values()):
        cluster.tick(node)
    for _ in range(EXCHANGES):
        exchange(cluster)


def exchange(cluster: Cluster) -> None:
    """Everybody does its work, and all that is on its way arrives; where nothing is blocked."""
    for node in list(cluster.nodes.values()):
        while node.raft.has_output:
            cluster.carry_out(node)
    mine, cluster.net = cluster.net, []
    for message in mine:
        if (message.sender, message.receiver) in cluster.blocked:
            cluster.lose(message)
        else:
            cluster.hand_over(message)


def leader_of(cluster: Cluster) -> Node | None:
    """Where all has settled: the one that leads, and every member has applied all."""
    leaders = cluster.properties.leaders
    term = max(leaders, default=0)
    node = cluster.nodes.get(leaders.get(term, 0))
    if node is None or node.raft.role != Role.LEADER or node.raft.term != term or cluster.replacing is not None:
        return None
    log = node.raft.log
    if not (log.committed == log.last_index >= cluster.properties.acknowledged and log.last_term == term):
        return None
    members = [cluster.nodes[number] for number in node.raft.configuration.members if number in cluster.nodes]
    return node if all(member.applied.index == log.committed for member in members) else None


def describe(cluster: Cluster) -> str:
    return "; ".join(
        f"{number}: {node.raft.role.value} of term {node.raft.term}, log {node.raft.log.last_index}, "
        f"committed {node.raft.log.committed}, {node.raft.configuration}"
        for number, node in cluster.nodes.items()
    )


def look_at_the_quiet(cluster: Cluster) -> None:
    """What the settings promise of a cluster in which all is well. Raises Broken."""
    leader = leader_of(cluster)
    if leader is None or leader.raft.configuration.is_joint or not cluster.settings.check_quorum:
        return
    there = sorted(leader.raft.configuration.voters - cluster.gone)
    others = [number for number in there if number != leader.number]
    pass_a_tick(cluster)
    if not others or leader.raft.role != Role.LEADER:
        return
    if cluster.settings.pre_vote:
        _nobody_unseats_a_leader_that_is_heard(cluster, leader, cluster.random.choice(others))
        # Who lost its vote and has not heard of it stands by the rank that it had, and may be the quicker one.
        standing = [node.raft.configuration for node in cluster.nodes.values() if node.raft.may_lead]
        all_know = all(configuration == leader.raft.configuration for configuration in standing)
        is_enough = 2 * len(others) > len(leader.raft.configuration.voters)
        if is_enough and cluster.random.random() < 0.5 and all_know:
            _a_dead_leader_is_followed_by_the_first_in_rank(cluster, leader)
            return
    _a_leader_that_hears_nobody_steps_down(cluster, leader)


def _nobody_unseats_a_leader_that_is_heard(cluster: Cluster, leader: Node, other: int) -> None:
    """Thesis, 9.6: somebody stands who alone did not hear the leader."""
    raft = cluster.nodes[other].raft
    term = leader.raft.term
    raft.leader_lost(leader.number)
    raft.campaign()
    for _ in range(2 * cluster.settings.election_ticks):
        exchange(cluster)
        pass_a_tick(cluster)
    if leader.raft.role != Role.LEADER or leader.raft.term != term:
        raise Broken(f"pre-vote: node {other} unseated {leader.number}, whom all others heard in term {term}")
    if raft.leader != leader.number:
        raise Broken(f"pre-vote: node {other} does not follow {leader.number} again")


def _a_dead_leader_is_followed_by_the_first_in_rank(cluster: Cluster, leader: Node) -> None:
    """All notice at once that its connection closed, and all know the same: who is there and first in the circle leads
    after its turn's tick, and nobody else has stood."""
    voters = sorted(leader.raft.configuration.voters - {leader.number})
    order = [number for number in voters if number > leader.number] + [n for n in voters if n < leader.number]
    first = next(number for number in order if number in cluster.nodes)
    term = leader.raft.term
    cluster.stop(leader)
    for node in cluster.nodes.values():
        node.raft.leader_lost(leader.number)
    for _ in range(1 + order.index(first) * cluster.settings.rank_ticks):
        pass_a_tick(cluster)
    raft = cluster.nodes[first].raft
    if (raft.role, raft.term) != (Role.LEADER, term + 1):
        raise Broken(f"rank: node {first} does not lead after {leader.number}: {describe(cluster)}")


def _a_leader_that_hears_nobody_steps_down(cluster: Cluster, leader: Node) -> None:
    """Thesis, 6.2: by its second look, since it may have heard somebody just after the last one."""
    cluster.blocked = {(number, leader.number) for number in cluster.numbers}
    for _ in range(2 * (cluster.settings.quorum_ticks or cluster.settings.election_ticks)):
        pass_a_tick(cluster)
    cluster.blocked = set()
    if leader.raft.role == Role.LEADER:
        raise Broken(f"check-quorum: node {leader.number} leads on and hears nobody")
