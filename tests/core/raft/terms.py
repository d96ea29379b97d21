"""Short terms: somebody is elected by just enough others, is heard by some of them for a moment, and dies or falls
silent. Figure 8 of the paper is one such sequence; so is nearly everything that breaks a wrong rule. Anything at any
time would need thousands of runs to come upon them, so here each term is a few draws: who stands, who votes, what is
proposed, how far it gets, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from typing import Final

from abid.core.raft.configuration import Change, ChangeKind, Configuration
from abid.core.raft.interface import Role
from abid.core.raft.messages import Kind
from tests.core.raft.simulation import Cluster, Node

ELECTION_ROUNDS: Final = 6
"""A pre-vote asked and answered, a vote asked and answered, and two for answers that come late."""
EXCHANGES_MAX: Final = 8
"""Until something is committed, though every second answer is lost."""
Kinds = frozenset[Kind]
VOTES: Final = frozenset({Kind.VOTE, Kind.VOTE_ANSWER, Kind.PRE_VOTE, Kind.PRE_VOTE_ANSWER, Kind.TIMEOUT_NOW})
OTHERS: Final = frozenset(Kind) - VOTES
VOTE_ANSWERS: Final = frozenset({Kind.VOTE_ANSWER})


class ShortTerms:
    """One after the other, in one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.random = cluster, cluster.random
        self.recent: list[int] = []
        """Who led of late: they tend to come back."""
        self.changes = self.random.choice((0.0, 0.0, 0.1, 0.4))
        self.crashes = self.random.choice((0.0, 0.0, 0.2))
        """How likely somebody crashes just after voting."""
        self.late_votes = self.random.choice((0.1, 0.4))
        self.answers = self.random.choice((0.5, 0.9))
        """How likely a leader hears an answer."""

    def run(self, terms: int) -> None:
        """Two rivals take turns, as in figure 8; or all voters change; or anybody follows anybody."""
        self.cluster.blocked = set()
        voters = self.voters()
        if self.random.random() < 0.2 and len(self.cluster.numbers) > 3:
            for _ in range(terms // 4):
                self.turn_over()
        elif self.random.random() < 0.5 and len(voters) > 2:
            one, other = self.random.sample(voters, 2)
            for place in range(terms):
                first, second = (one, other) if place % 2 == 0 else (other, one)
                if not {one, other} & self.cluster.gone:
                    self.one_term(first, without={second})
        else:
            for _ in range(terms):
                self.one_term(self.some_number())

    def one_term(self, first: int, without: AbstractSet[int] = frozenset()) -> None:
        """Those without whom it is neither vote nor hear of it."""
        candidates = [first]
        camp = self.camp_of(self.awake(first).raft.configuration, without) | {first}
        if not without and self.random.random() < 0.4:
            candidates = [self.best_of(camp)]
        if not without and len(camp) > 1 and self.random.random() < 0.3:
            candidates.append(self.random.choice(sorted(camp - set(candidates))))
        self.elect(candidates, camp)
        for number in candidates:
            node = self.cluster.nodes.get(number)
            if node is not None and node.raft.role == Role.LEADER:
                self.recent = [number, *self.recent[:1]]
                heard_by = self.heard_by(node, camp, unheard=0.5 if without else 0.2)
                self.lead(node, heard_by - without - self.cluster.gone)
        self.read_anywhere()
        self.clear()
        self.cluster.properties.look_at_logs([node.raft for node in self.cluster.nodes.values()])

    def turn_over(self) -> None:
        """A change of several voters is committed by those of before, at once (thesis, 4.3) or one by one (4.1). Those
        to come then try to go on alone, and those of before, who need not know yet that it is committed, try the
        same."""
        before = set(self.voters()) - self.cluster.gone
        if not before or self.cluster.replacing is not None:
            return
        camp = self.camp_of(Configuration(voters=frozenset(before)))
        if not camp:
            return
        number = self.best_of(camp)
        self.elect([number], camp)
        if not self.leads(number):
            return
        leader = self.cluster.nodes[number]
        self.exchange_until(leader, camp, lambda: leader.raft.log.applied == leader.raft.log.last_index)
        known = leader.raft.configuration
        self.propose_other_voters(leader, before)
        log = leader.raft.log
        last = log.last_index
        self.exchange_until(leader, camp, lambda: leader.raft.configuration.is_joint or log.applied >= last)
        if number not in self.cluster.nodes or leader.raft.configuration == known:
            return
        to_come = self.enough_of(leader.raft.configuration.voters - self.cluster.gone, number, camp)
        self.cluster.propose(leader)
        last = log.last_index
        self.exchange_until(leader, to_come, lambda: log.applied >= last)
        if self.leads(number):
            self.lead(leader, to_come)
        self.clear()
        rest = before - {number} - to_come - self.cluster.gone
        if rest:
            self.one_term(self.best_of(rest), without={number, *to_come})

    def propose_other_voters(self, leader: Node, before: set[int]) -> None:
        random = self.random
        outside = sorted(set(self.cluster.numbers) - before)
        if random.random() < 0.5:
            fewer = random.sample(sorted(before), len(before) // 2 + 1)
            self.cluster.change_all(leader, set(outside or fewer))
            return
        leaving = sorted(before - {leader.number})
        join = outside and random.random() < 0.7
        kind, numbers = (ChangeKind.VOTER, outside) if join else (ChangeKind.REMOVE, leaving)
        for number in random.sample(numbers, min(len(numbers), random.randint(2, 3))):
            self.cluster.propose_change(leader, [Change(kind, number)])

    def enough_of(self, voters: Collection[int], leader: int, camp: set[int]) -> set[int]:
        """Just a majority with the leader, first of those who have not heard of it yet."""
        others = sorted((number for number in voters if number != leader), key=lambda number: number in camp)
        return set(others[: len(voters) // 2])

    # Who.

    def voters(self) -> list[int]:
        """Those of whoever knows most."""
        nodes = self.cluster.nodes.values()
        newest = max(nodes, key=lambda node: node.applied.index, default=None)
        known = newest.raft.configuration.voters if newest is not None else frozenset()
        return sorted(known.intersection(self.cluster.numbers))

    def some_number(self) -> int:
        recent = [number for number in self.recent if number not in self.cluster.gone]
        if recent and self.random.random() < 0.5:
            return self.random.choice(recent)
        return self.random.choice(self.cluster.numbers)

    def awake(self, number: int) -> Node:
        self.cluster.paused.discard(number)
        if number in self.cluster.down:
            return self.cluster.restart(number)
        return self.cluster.nodes[number]

    def camp_of(self, configuration: Configuration, without: AbstractSet[int] = frozenset()) -> set[int]:
        """A majority of the voters, of both groups or only of one, and mostly not one more."""
        camp: set[int] = set()
        for group in (configuration.voters, configuration.outgoing):
            if group and self.random.random() < 0.9:
                enough = len(group) // 2 + 1
                size = enough if self.random.random() < 0.6 else self.random.randint(enough, len(group))
                there = sorted(group - without)
                camp |= set(self.random.sample(there, min(size, len(there))))
        return camp - self.cluster.gone

    def best_of(self, camp: set[int]) -> int:
        """Whose log the others cannot refuse."""
        logs = {number: self.awake(number).raft.log for number in sorted(camp)}
        return max(logs, key=lambda number: (logs[number].last_term, logs[number].last_index))

    def heard_by(self, leader: Node, camp: set[int], unheard: float) -> set[int]:
        """Nobody, those who elected it, just enough others, or anybody."""
        others = [number for number in self.cluster.numbers if number != leader.number]
        if self.random.random() < unheard:
            return set()
        draw = self.random.random()
        if draw < 0.3:
            heard = set(camp)
        elif draw < 0.5:
            heard = self.camp_of(leader.raft.configuration)
        else:
            heard = set(self.random.sample(others, self.random.randint(0, len(others))))
        return heard - {leader.number}

    # An election.

    def elect(self, candidates: Collection[int], camp: set[int]) -> None:
        """Nobody else hears of it. Who led before knows nothing of it, or has died and come back."""
        for number in sorted(camp):
            node = self.awake(number)
            if node.raft.role == Role.LEADER and (number not in candidates or self.random.random() < 0.7):
                self.cluster.stop(node)
                node = self.cluster.restart(number)
            node.raft.forget_leader()
            while node.raft.has_output:
                self.cluster.carry_out(node)
        self.clear()
        for _ in range(self.random.choice((1, 3))):
            for number in candidates:
                self.cluster.nodes[number].raft.campaign()
            for _ in range(ELECTION_ROUNDS):
                self.let_arrive_late(VOTE_ANSWERS, candidates, 0.2)
                self.work(camp)
                self.crash_a_voter(camp.difference(candidates))
                self.deliver(VOTES, camp, camp, 0.95)
                if any(self.leads(number) for number in candidates) and self.random.random() < 0.7:
                    return

    def crash_a_voter(self, voters: set[int]) -> None:
        """And it is back at once: whom it voted for is what its disk says."""
        there = sorted(voters.intersection(self.cluster.nodes))
        if there and self.random.random() < self.crashes:
            number = self.random.choice(there)
            self.cluster.stop(self.cluster.nodes[number])
            self.cluster.restart(number)

    def leads(self, number: int) -> bool:
        node = self.cluster.nodes.get(number)
        return node is not None and node.raft.role == Role.LEADER

    def let_arrive_late(self, kinds: Kinds, receivers: Collection[int], share: float) -> None:
        slow = self.cluster.slow
        late = [message for message in slow if message.kind in kinds and message.receiver in receivers]
        for message in late:
            if self.random.random() < share:
                slow.remove(message)
                self.cluster.hand_over(message)

    # A term.

    def lead(self, leader: Node, heard_by: set[int]) -> None:
        """It is asked for this and that, some hear of it, and it ends."""
        cluster, random = self.cluster, self.random
        for number in sorted(heard_by):
            if random.random() < 0.8:
                self.awake(number)
        if random.random() < 0.2:
            cluster.read(leader)
        for _ in range(random.choice((0, 0, 1, 1, 2, 4))):
            cluster.propose(leader)
        if not heard_by or random.random() < 0.7:
            self.work({leader.number})  # it has what it was asked for, be it alone
        for _ in range(random.choice((0, 0, 1, 2, 2, 3, 4, 8))):
            if random.random() < self.changes:
                cluster.change(leader)
            self.exchange(leader, heard_by)
            if leader.number not in cluster.nodes:
                return
        if random.random() < 0.5:
            self.work({leader.number})  # it did what the last answers allow
        if random.random() < 0.3:
            for number in sorted({leader.number, *heard_by} & {*cluster.nodes}):
                cluster.compact(cluster.nodes[number])
        self.end(leader)

    def exchange_until(self, leader: Node, heard_by: set[int], holds: Callable[[], bool]) -> None:
        for _ in range(EXCHANGES_MAX):
            if self.leads(leader.number) and not holds():
                self.exchange(leader, heard_by - {leader.number})
                self.work({leader.number})
                self.cluster.tick(leader)  # what was lost is sent again only after a heartbeat's answer

    def exchange(self, leader: Node, heard_by: set[int]) -> None:
        self.work({leader.number})
        self.deliver(OTHERS, {leader.number}, heard_by, 0.9)
        self.let_arrive_late(OTHERS, heard_by, 0.1)
        self.work(heard_by)
        self.deliver(OTHERS, heard_by, {leader.number}, self.answers)

    def end(self, leader: Node) -> None:
        """It dies, in the middle of its work or between; or falls silent for a while; or leads on, if it can."""
        cluster, fate = self.cluster, self.random.random()
        if leader.number not in cluster.nodes:
            return
        if fate < 0.25:
            cluster.stop(leader)
        elif fate < 0.5 and leader.raft.has_output:
            cluster.carry_out(leader, crash_at=self.random.randrange(4))
        elif fate < 0.65:
            cluster.paused.add(leader.number)
        if self.random.random() < 0.1:
            cluster.restore_disk()
        if self.random.random() < 0.2 and cluster.nodes:
            cluster.copy_disk(self.random.choice(list(cluster.nodes.values())))

    def read_anywhere(self) -> None:
        """Above all of those who only believe that they lead."""
        for node in list(self.cluster.nodes.values()):
            if self.random.random() < (0.5 if node.raft.role == Role.LEADER else 0.05):
                self.cluster.read(node)
                self.work({node.number})

    # Moving things.

    def work(self, numbers: Collection[int]) -> None:
        for number in sorted(numbers):
            node = self.cluster.nodes.get(number)
            if node is not None and number not in self.cluster.paused and node.raft.has_output:
                self.cluster.carry_out(node)

    def deliver(
        self, kinds: frozenset[Kind], senders: Collection[int], receivers: Collection[int], share: float
    ) -> None:
        """What is on its way between these, or a share of it; votes may come much later."""
        cluster, random = self.cluster, self.random
        mine = [m for m in cluster.net if m.kind in kinds and m.sender in senders and m.receiver in receivers]
        cluster.net = [
            m for m in cluster.net if m.kind not in kinds or m.sender not in senders or m.receiver not in receivers
        ]
        if random.random() < 0.3:
            random.shuffle(mine)
        for message in mine:
            if random.random() < (0.5 if message.kind == Kind.SNAPSHOT else 0.05):
                cluster.delay(message)  # and once more, later
            if message.kind == Kind.VOTE_ANSWER and random.random() < self.late_votes:
                cluster.delay(message)
            elif random.random() < share:
                cluster.hand_over(message)
            else:
                cluster.lose(message)

    def clear(self) -> None:
        """What is on its way by now is lost, or comes much later."""
        for message in self.cluster.net:
            if self.random.random() < 0.2:
                self.cluster.delay(message)
            else:
                self.cluster.lose(message)
        self.cluster.net = []
