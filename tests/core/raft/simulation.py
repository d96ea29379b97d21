"""A cluster in one process: everything that can go wrong goes wrong, by a seed; what must hold is looked at always.

Messages are lost, doubled, reordered, held up by partitions of one or both directions; nodes pause, crash at every
point of an output, and come back with what their disks hold; members come and go; logs are compacted. The same seed
gives the same run. What is checked (paper, figure 3): election safety, leader append-only, log matching, leader
completeness, state-machine safety; that no acknowledged proposal is lost; that reads see what was acknowledged before
them; and that everything settles when all is well again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from abid.core.raft.change import Proposal, encoded
from abid.core.raft.configuration import Change, ChangeKind, Configuration, ConfigurationError
from abid.core.raft.interface import Dropped, Output, Role, Settings, Stranger
from abid.core.raft.log import Log
from abid.core.raft.messages import Entry, EntryKind, HardState, Kind, Message, Snapshot
from abid.core.raft.raft import Raft

STEPS = 1_500
SETTLE_ROUNDS = 400
COMPACT_EVERY = 20


class Broken(AssertionError):
    """Something does not hold that always must."""


@dataclass
class Disk:
    """What survives a crash. An output is stored whole or not at all: it is one transaction."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(0, 0, Configuration()))

    def store(self, output: Output) -> None:
        if output.snapshot is not None:
            self.snapshot = output.snapshot
            self.entries = []
        if output.entries:
            first = output.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first] + list(output.entries)
        if output.hard_state is not None:
            self.hard_state = output.hard_state

    def compact(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index]


class Node:
    def __init__(self, number: int, disk: Disk, settings: Settings, draw: Callable[[int, int], int]) -> None:
        self.number, self.disk, self.settings, self.draw = number, disk, settings, draw
        self.raft: Raft
        self.applied: Snapshot
        self.reads: dict[bytes, int] = {}
        """Asked for here → what had been acknowledged by then."""
        self.start()

    def start(self) -> None:
        disk = self.disk
        self.applied = disk.snapshot
        self.reads = {}
        log = Log(disk.snapshot.index, disk.snapshot.term, disk.entries)
        self.raft = Raft(
            self.number,
            log,
            disk.snapshot.configuration,
            disk.hard_state,
            self.draw,
            lambda: self.applied,
            self.settings,
        )


class Cluster:
    """``nodes`` that run; ``down`` are those that crashed, by what their disks hold."""

    def __init__(self, seed: int, node_type: type[Node] = Node, settings: Settings | None = None) -> None:
        self.random = random.Random(seed)
        count = self.random.choice((3, 3, 3, 4, 5, 7))
        voters = frozenset(range(1, self.random.choice((count, count, count - 1, (count + 1) // 2)) + 1))
        begin = Snapshot(1, 1, Configuration(voters=voters, learners=frozenset(range(1, count + 1)) - voters))
        self.settings = settings or Settings(
            election_ticks=4,
            pre_vote=self.random.random() < 0.5,
            check_quorum=self.random.random() < 0.5,
            inflight_max=self.random.choice((1, 2, 16)),
            entries_bytes_max=self.random.choice((1, 40, 1 << 20)),
            apply_bytes_max=self.random.choice((1, 1 << 20)),
        )
        self.node_type = node_type
        self.nodes: dict[int, Node] = {}
        self.down: dict[int, Disk] = {number: Disk(snapshot=begin) for number in range(1, count + 1)}
        for number in list(self.down):
            self.restart(number)
        self.net: list[Message] = []
        self.slow: list[Message] = []
        """Messages that come much later."""
        self.blocked: set[tuple[int, int]] = set()
        self.leaders: dict[int, int] = {}
        self.led: dict[int, list[tuple[int, int]]] = {}
        """What a leader's log was when it was last looked at: (index, term)."""
        self.truth: dict[int, Entry] = {}
        """What was applied anywhere, by index."""
        self.acknowledged = 0
        self.proposals = 0
        self.trace: list[object] = []
        self.crashes_between = 0.0
        """How likely a crash is in the middle of an output."""

    def restart(self, number: int) -> None:
        self.nodes[number] = self.node_type(number, self.down.pop(number), self.settings, self.random.randint)

    # What happens.

    def run(self, steps: int = STEPS) -> None:
        """In one of four tempers: some faults show where much is agreed on, others where hardly anything is."""
        stormy, changing = self.random.random() < 0.5, self.random.random() < 0.4
        actions: list[tuple[Callable[[], None], int]] = [
            (self.deliver, 60), (self.tick, 45 if stormy else 14), (self.process, 60), (self.propose, 8),
            (self.crash, 5 if stormy else 1), (self.come_back, 8 if stormy else 2), (self.heal, 3 if stormy else 1),
            (self.partition, 4 if stormy else 1), (self.change, 8 if changing else 1), (self.compact, 2),
            (self.transfer, 1), (self.read, 2), (self.lose_leader, 1), (self.report, 1), (self.deliver_slow, 3),
        ]  # fmt: skip
        self.crashes_between = 0.06 if stormy else 0.01
        chosen = self.random.choices([action for action, _ in actions], [weight for _, weight in actions], k=steps)
        for action in chosen:
            action()
            self.check_leaders()
        self.settle()

    def some(self) -> Node | None:
        return self.random.choice(list(self.nodes.values())) if self.nodes else None

    def deliver(self) -> None:
        if not self.net:
            return
        place = self.random.randrange(len(self.net))
        message = self.net[place]
        fate = self.random.random()
        if fate > 0.05:  # else it comes again
            self.net[place] = self.net[-1]
            self.net.pop()
        if fate < 0.1 or (message.sender, message.receiver) in self.blocked:
            self.lose(message)
        elif fate < (0.3 if message.kind == Kind.VOTE_ANSWER else 0.14):
            self.slow.append(message)
        else:
            self.hand_over(message)

    def deliver_slow(self) -> None:
        if self.slow:
            self.net.append(self.slow.pop(self.random.randrange(len(self.slow))))

    def lose(self, message: Message) -> None:
        """Of a snapshot that did not arrive the sender hears: it is a transfer of its own."""
        sender = self.nodes.get(message.sender)
        if message.kind == Kind.SNAPSHOT and sender is not None:
            sender.raft.snapshot_ended(message.receiver, arrived=False)

    def hand_over(self, message: Message) -> None:
        node = self.nodes.get(message.receiver)
        if node is None:
            self.lose(message)
            return
        self.trace.append(message)
        try:
            node.raft.step(message)
        except (Stranger, Dropped):
            return

    def tick(self) -> None:
        node = self.some()
        if node is not None:
            node.raft.tick()

    def process(self) -> None:
        node = self.some()
        if node is not None and node.raft.has_output:
            crashes = self.random.random() < self.crashes_between
            self.carry_out(node, crash_at=self.random.randrange(3) if crashes else None)

    def carry_out(self, node: Node, crash_at: int | None = None) -> None:
        """Store, send, apply, done; or a crash at one of the points between."""
        output = node.raft.output()
        for point, action in enumerate((self.store, self.send, self.apply)):
            if crash_at == point:
                if action == self.send:
                    self.net += output.messages[: self.random.randrange(len(output.messages) + 1)]
                self.stop(node)
                return
            action(node, output)
        node.raft.done()

    def store(self, node: Node, output: Output) -> None:
        node.disk.store(output)

    def send(self, node: Node, output: Output) -> None:
        self.net += output.messages

    def apply(self, node: Node, output: Output) -> None:
        if output.snapshot is not None:
            node.applied = output.snapshot
        for entry in output.committed:
            if entry.index != node.applied.index + 1:
                raise Broken(f"node {node.number} applies {entry.index} after {node.applied.index}")
            known = self.truth.setdefault(entry.index, entry)
            if known != entry:
                raise Broken(f"node {node.number} applies {entry}, another applied {known}")
            self.trace.append((node.number, entry.index, entry.term))
            configuration = node.raft.configuration
            if entry.kind == EntryKind.CHANGE:
                try:
                    configuration = node.raft.apply_change(entry.data)
                except ConfigurationError:
                    configuration = node.raft.configuration
            node.applied = Snapshot(entry.index, entry.term, configuration)
            self.acknowledged = max(self.acknowledged, entry.index)
        for context, index in output.reads:
            asked_at = node.reads.pop(context, 0)
            if index < asked_at:
                raise Broken(f"a read at {index} does not see {asked_at}, which was acknowledged before it")

    def propose(self) -> None:
        node = self.some()
        if node is None:
            return
        self.proposals += 1
        try:
            node.raft.propose(b"%d" % self.proposals)
        except Dropped:
            return

    def stop(self, node: Node) -> None:
        self.down[node.number] = node.disk
        del self.nodes[node.number]
        self.led.pop(node.number, None)

    def crash(self) -> None:
        node = self.some()
        if node is not None:
            self.stop(node)

    def come_back(self) -> None:
        if self.down:
            self.restart(self.random.choice(sorted(self.down)))

    def partition(self) -> None:
        numbers = sorted({*self.nodes, *self.down})
        side = set(self.random.sample(numbers, self.random.randint(1, len(numbers) - 1)))
        self.blocked = {(a, b) for a in side for b in numbers if b not in side}
        if self.random.random() < 0.6:
            self.blocked |= {(b, a) for a, b in self.blocked}

    def heal(self) -> None:
        self.blocked = set()

    def change(self) -> None:
        """Somebody joins, leaves, or changes between voter and learner; sometimes several at once."""
        node = self.some()
        if node is None:
            return
        numbers = sorted({*self.nodes, *self.down})
        kinds = (ChangeKind.VOTER, ChangeKind.VOTER, ChangeKind.LEARNER, ChangeKind.REMOVE)
        changes = tuple(
            Change(self.random.choice(kinds), self.random.choice(numbers))
            for _ in range(self.random.choice((1, 1, 2, 3)))
        )
        try:
            node.raft.propose_change(encoded(Proposal(changes)))
        except Dropped:
            return

    def compact(self) -> None:
        node = self.some()
        if node is not None and node.applied.index > node.raft.log.begin:
            if node.raft.log.applied < node.applied.index:
                return
            node.disk.compact(node.applied)
            node.raft.log.compact(node.applied.index)

    def transfer(self) -> None:
        node, other = self.some(), self.some()
        if node is not None and other is not None:
            node.raft.transfer(other.number)

    def read(self) -> None:
        node = self.some()
        if node is not None:
            self.proposals += 1
            context = b"r%d" % self.proposals
            node.reads[context] = self.acknowledged
            node.raft.read(context)

    def lose_leader(self) -> None:
        node = self.some()
        if node is not None:
            node.raft.forget_leader()

    def report(self) -> None:
        node, other = self.some(), self.some()
        if node is not None and other is not None:
            node.raft.unreachable(other.number)
            node.raft.snapshot_ended(other.number, arrived=self.random.random() < 0.5)

    # What must hold.

    def check_leaders(self) -> None:
        for node in self.nodes.values():
            raft = node.raft
            if raft.role != Role.LEADER:
                self.led.pop(node.number, None)
                continue
            known = self.leaders.setdefault(raft.term, node.number)
            if known != node.number:
                raise Broken(f"nodes {known} and {node.number} both lead term {raft.term}")
            if node.number not in self.led:
                self.check_complete(node)
            self.check_append_only(node)

    def check_complete(self, node: Node) -> None:
        """Leader completeness: all that was committed in earlier terms."""
        log = node.raft.log
        for index, entry in self.truth.items():
            if entry.term < node.raft.term and index > log.begin and log.term_of(index) != entry.term:
                raise Broken(f"node {node.number} leads term {node.raft.term} without {entry}")

    def check_append_only(self, node: Node) -> None:
        """Looked at only when the log grew or shrank: a leader's never does the latter."""
        log = node.raft.log
        before = self.led.get(node.number, [])
        if before and before[-1][0] == log.last_index:
            return
        for index, term in before:
            if index > log.begin and log.term_of(index) != term:
                raise Broken(f"node {node.number} leads and changed its own entry {index}")
        self.led[node.number] = [(entry.index, entry.term) for entry in log.entries]

    def check_matching(self) -> None:
        """Log matching: where two logs have the same term at an index, all before is the same."""
        logs = [node.raft.log for node in self.nodes.values()]
        for one in logs:
            for other in logs:
                begin, last = max(one.begin, other.begin) + 1, min(one.last_index, other.last_index)
                same = False
                for index in range(last, begin - 1, -1):
                    ours, theirs = one.entries[index - one.begin - 1], other.entries[index - other.begin - 1]
                    same = same or ours.term == theirs.term
                    if same and ours != theirs:
                        raise Broken(f"logs agree behind {index} and differ at it: {ours}, {theirs}")

    # The end.

    def settle(self) -> None:
        """All is well again: one leads, everybody who is a member has all, and nothing acknowledged is missing."""
        self.check_matching()
        self.heal()
        for number in sorted(self.down):
            self.restart(number)
        for _ in range(SETTLE_ROUNDS):
            for node in list(self.nodes.values()):
                node.raft.tick()
            for _ in range(6):
                for node in list(self.nodes.values()):
                    while node.raft.has_output:
                        self.carry_out(node)
                mine, self.net = self.net, []
                for message in mine:
                    self.hand_over(message)
                self.check_leaders()
            if self.has_settled():
                break
        else:
            raise Broken(f"it does not settle: {self.describe()}")
        self.check_matching()

    def has_settled(self) -> bool:
        leaders = [node for node in self.nodes.values() if node.raft.role == Role.LEADER and self.is_newest(node)]
        if len(leaders) != 1:
            return False
        raft = leaders[0].raft
        members = [self.nodes[number] for number in raft.configuration.members if number in self.nodes]
        return (
            raft.log.committed == raft.log.last_index >= self.acknowledged
            and raft.log.term_of(raft.log.committed) == raft.term
            and all(node.applied.index == raft.log.committed for node in members)
        )

    def is_newest(self, node: Node) -> bool:
        return node.raft.term == max(self.leaders, default=0) and self.leaders[node.raft.term] == node.number

    def describe(self) -> str:
        return "; ".join(
            f"{number}: {node.raft.role.value} of term {node.raft.term}, log {node.raft.log.last_index}, "
            f"committed {node.raft.log.committed}, {node.raft.configuration}"
            for number, node in self.nodes.items()
        )
