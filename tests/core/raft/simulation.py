"""A cluster in one process: everything that can go wrong goes wrong, by a seed; what must hold is looked at always.

This file is the cluster: nodes, disks, what is on its way, and each single thing that can happen. What happens in which
order is drawn by ``weather`` (anything at any time, at rates of the day) and ``terms`` (short terms, whose leaders die
or fall silent at the worst moment); ``properties`` says what must hold, ``settling`` that all ends well. The same seed
gives the same run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from abid.core.raft.change import Proposal, encoded
from abid.core.raft.configuration import Change, ChangeKind, Configuration, ConfigurationError
from abid.core.raft.interface import Dropped, Output, Role, Settings, Stranger
from abid.core.raft.log import Log
from abid.core.raft.messages import EntryKind, Kind, Message, Snapshot
from abid.core.raft.raft import Raft
from tests.core.raft.disk import Disk
from tests.core.raft.properties import Broken, Properties

SLOW_MAX: Final = 80
"""Messages kept for much later: enough to meet a term three or four elections on; the oldest is lost first."""
COPIES_MAX: Final = 3
"""Backups kept of each disk."""


class Node:
    """One that runs: the rules, the application above them, and the disk below."""

    def __init__(self, number: int, disk: Disk, settings: Settings, draw: Callable[[int, int], int]) -> None:
        self.number, self.disk = number, disk
        self.applied = disk.snapshot
        self.reads: dict[bytes, int] = {}
        """Asked for here → what had been acknowledged by then."""
        log = Log(disk.snapshot.index, disk.snapshot.term, disk.entries)
        begin = disk.snapshot.configuration
        self.raft = Raft(number, log, begin, disk.hard_state, draw, lambda: self.applied, settings)


class Cluster:
    """``nodes`` run; ``down`` are those that crashed, by what their disks hold; ``gone`` never come back."""

    def __init__(self, seed: int, count: int | None = None) -> None:
        self.random = random.Random(seed)
        count = count or self.random.choice((3, 3, 3, 4, 5, 5, 6, 7))
        voters = frozenset(range(1, self.random.choice((count, count, count - 1, (count + 1) // 2)) + 1))
        begin = Snapshot(1, 1, Configuration(voters=voters, learners=frozenset(range(1, count + 1)) - voters))
        sparing = random.Random(f"sparing {seed}")  # of its own, so that what was seen with a seed is seen again
        self.settings = Settings(
            election_ticks=4,
            heartbeat_ticks=sparing.choice((1, 2)),
            quorum_ticks=sparing.choice((0, 8)),
            spares_answers=sparing.random() < 0.5,
            pre_vote=self.random.random() < 0.5,
            check_quorum=self.random.random() < 0.5,
            inflight_max=self.random.choice((1, 2, 16)),
            entries_bytes_max=self.random.choice((1, 1, 10, 1 << 20)),
            apply_bytes_max=self.random.choice((1, 1 << 20)),
        )
        self.storing = random.Random(f"storing {seed}")
        """What happens while something is being stored."""
        self.properties = Properties()
        self.nodes: dict[int, Node] = {}
        self.down: dict[int, Disk] = {number: Disk(snapshot=begin) for number in range(1, count + 1)}
        self.copies: dict[int, list[Disk]] = {}
        self.promised: dict[tuple[int, int], list[Message]] = {}
        """What a node that runs heard of another: (from whom, who)."""
        self.gone: set[int] = set()
        self.replacing: tuple[int, int] | None = None
        """A voter that is gone, and the number under which its host came again."""
        self.paused: set[int] = set()
        self.net: list[Message] = []
        self.slow: list[Message] = []
        """Messages that come much later."""
        self.blocked: set[tuple[int, int]] = set()
        self.proposals = 0
        self.trace: list[object] = []
        for number in list(self.down):
            self.restart(number)

    # Who is there.

    @property
    def numbers(self) -> list[int]:
        """All that run or may come back."""
        return sorted({*self.nodes, *self.down})

    def some(self) -> Node | None:
        awake = [node for number, node in self.nodes.items() if number not in self.paused]
        return self.random.choice(awake) if awake else None

    def restart(self, number: int) -> Node:
        """From its disk. The others see at once that it has forgotten nothing."""
        disk = self.down.pop(number)
        node = Node(number, disk, self.settings, self.random.randint)
        words = self.accusation(node)
        if words is not None:
            raise Broken(f"node {number} comes back with all it promised, and is told: {words}")
        self.nodes[number] = node
        return node

    def accusation(self, back: Node) -> str | None:
        """What those who run say of one that comes back."""
        said = (node.raft.recollection.missing(back.number, back.raft.standing) for node in self.nodes.values())
        return next((words for words in said if words is not None), None)

    def stop(self, node: Node) -> None:
        """A crash: of what was not synced, some of the beginning is on the disk."""
        node.disk.crash(self.random.randint(0, len(node.disk.unsynced)))
        self.down[node.number] = node.disk
        del self.nodes[node.number]
        self.paused.discard(node.number)
        self.properties.on_crash(node.number)
        self.promised = {key: value for key, value in self.promised.items() if key[1] != node.number}

    # Messages.

    def hand_over(self, message: Message) -> None:
        node = self.nodes.get(message.receiver)
        if node is None:
            self.lose(message)
        elif node.number in self.paused:
            self.delay(message)
        else:
            self.trace.append(message)
            try:
                node.raft.step(message)
            except (Stranger, Dropped):
                return
            if message.kind in (Kind.VOTE_ANSWER, Kind.APPEND_ANSWER) and not message.refused:
                self.promised.setdefault((message.sender, message.receiver), []).append(message)
            self.properties.look(node.number, node.raft)

    def lose(self, message: Message) -> None:
        """Of a snapshot that did not arrive the sender hears: it is a transfer of its own."""
        sender = self.nodes.get(message.sender)
        if message.kind == Kind.SNAPSHOT and sender is not None:
            sender.raft.snapshot_ended(message.receiver, arrived=False)

    def delay(self, message: Message) -> None:
        self.slow.append(message)
        if len(self.slow) > SLOW_MAX:
            self.lose(self.slow.pop(0))

    def deliver_slow(self) -> None:
        if self.slow:
            self.net.append(self.slow.pop(self.random.randrange(len(self.slow))))

    # One node's work.

    def tick(self, node: Node) -> None:
        node.raft.tick()
        self.properties.look(node.number, node.raft)

    def carry_out(self, node: Node, crash_at: int | None = None, *, takes_time: bool = False) -> None:
        """One output: store, send, apply, done; or a crash before, in the middle of, or after storing, or after
        sending. ``takes_time``: other things happen before it is stored."""
        output = node.raft.output()
        if takes_time and (output.snapshot is not None or output.entries or output.hard_state is not None):
            has_spoken = self.pass_time(node)
            if has_spoken and self.storing.random() < 0.2:
                crash_at = self.storing.randrange(2)
        if crash_at == 0:
            self.stop(node)
            return
        if crash_at == 1:
            node.disk.write(output)
            self.stop(node)
            return
        self.store(node, output)
        if crash_at == 2:
            self.send(node, output.messages[: self.random.randrange(len(output.messages) + 1)])
            self.stop(node)
            return
        self.send(node, output.messages)
        if crash_at == 3:
            self.stop(node)
            return
        self.apply(node, output)
        node.raft.done()
        self.properties.look(node.number, node.raft)

    def pass_time(self, node: Node) -> bool:
        """It hears others and the clock, and heartbeats leave, as ``abid.cluster.consensus`` has it; and how long it
        waits for a leader may change, as links and disks do (``core.raft.patience``). Whether any left."""
        lots, has_spoken = self.storing, False
        if lots.random() < 0.05:
            ticks = lots.choice((self.settings.election_ticks, 6, 20))
            node.raft.use(msgspec.structs.replace(self.settings, election_ticks=ticks))
        for _ in range(lots.choice((0, 0, 0, 1, 3))):
            mine = [m for m in self.net if m.receiver == node.number and (m.sender, m.receiver) not in self.blocked]
            if mine and lots.random() < 0.7:
                message = lots.choice(mine)
                self.net.remove(message)
                self.hand_over(message)
            else:
                self.tick(node)
            if self.may_leave_now(node):
                left = node.raft.take_heartbeats()
                self.send(node, left)
                has_spoken = has_spoken or bool(left)
        return has_spoken

    def may_leave_now(self, node: Node) -> bool:
        """Heartbeats, before what is being stored is: of a term that is stored, since the others remember in which
        terms a node spoke."""
        return node.raft.term == node.disk.hard_state.term

    def store(self, node: Node, output: Output) -> None:
        node.disk.store(output)

    def send(self, node: Node, messages: Iterable[Message]) -> None:
        self.net += messages

    def apply(self, node: Node, output: Output) -> None:
        if output.snapshot is not None:
            node.applied = output.snapshot
        for entry in output.committed:
            self.properties.on_apply(node.number, entry, node.applied.index)
            self.trace.append((node.number, entry.index, entry.term))
            configuration = node.raft.configuration
            if entry.kind == EntryKind.CHANGE:
                try:
                    configuration = node.raft.apply_change(entry.data)
                except ConfigurationError:
                    configuration = node.raft.configuration
                self.properties.on_configuration(node.number, entry.index, configuration)
                self.look_whether_replaced(configuration)
            node.applied = Snapshot(entry.index, entry.term, configuration)
        for context, index in output.reads:
            self.properties.on_read(node.number, index, node.reads.pop(context, 0))

    def propose(self, node: Node) -> None:
        self.proposals += 1
        try:
            node.raft.propose(b"p%03d" % self.proposals)
        except Dropped:
            return

    def read(self, node: Node) -> None:
        self.proposals += 1
        context = b"r%03d" % self.proposals
        node.reads[context] = self.properties.acknowledged
        node.raft.read(context)

    def compact(self, node: Node) -> None:
        log = node.raft.log
        if log.begin < node.applied.index <= log.applied:
            node.disk.compact(node.applied)
            log.compact(node.applied.index)

    # Members come and go.

    def change(self, node: Node) -> None:
        """Somebody joins, leaves, or changes between voter and learner; sometimes several at once, sometimes all. Not
        while a voter is replaced."""
        if self.replacing is not None:
            self.replace()
            return
        if self.random.random() < 0.5:
            self.change_all(node, set(self.random.sample(self.numbers, self.random.randint(1, len(self.numbers)))))
            return
        kinds = (ChangeKind.VOTER, ChangeKind.VOTER, ChangeKind.LEARNER, ChangeKind.REMOVE)
        some = self.random.choice((1, 1, 2, 3))
        drawn = [(self.random.choice(kinds), self.random.choice(self.numbers)) for _ in range(some)]
        self.propose_change(node, [Change(kind, number) for kind, number in drawn])

    def change_all(self, node: Node, wanted: set[int]) -> None:
        """From these voters to those."""
        now = node.raft.configuration.voters
        leaving = self.random.choice((ChangeKind.REMOVE, ChangeKind.LEARNER))
        joining = [Change(ChangeKind.VOTER, number) for number in sorted(wanted - now)]
        self.propose_change(node, [*joining, *(Change(leaving, number) for number in sorted(now - wanted))])

    def propose_change(self, node: Node, changes: Iterable[Change]) -> None:
        if not changes:
            return
        try:
            node.raft.propose_change(encoded(Proposal(tuple(changes))))
        except Dropped:
            return

    def copy_disk(self, node: Node) -> None:
        copies = self.copies.setdefault(node.number, [])
        copies.append(node.disk.copy())
        del copies[:-COPIES_MAX]

    def restore_disk(self) -> None:
        """A host is put back to an older copy of its disk, and one that runs was promised what is missing now. It comes
        back as it is, unless those who run refuse it: then its number is gone, and it joins under another."""
        if self.replacing is not None:
            return
        spare = [number for number in self.copies if number not in self.gone and self.can_spare(number)]
        choices = [(number, old) for number in spare for old in self.copies[number] if self.forgot(number, old)]
        if not choices:
            return
        number, old = self.random.choice(choices)
        if number in self.nodes:
            self.stop(self.nodes[number])
        del self.down[number]
        back = Node(number, old.copy(), self.settings, self.random.randint)
        if self.accusation(back) is None:
            self.nodes[number] = back
            return
        self.gone.add(number)
        new = max({*self.numbers, *self.gone}) + 1
        self.down[new] = Disk()
        self.replacing = (number, new)
        self.trace.append(("replaced", number, new))
        self.restart(new)

    def forgot(self, number: int, old: Disk) -> bool:
        """Whether a promise that was heard by one that runs is not on this disk."""
        state = old.hard_state
        for (sender, _), messages in self.promised.items():
            if sender != number:
                continue
            for message in messages:
                lacks = state.term == message.term and (
                    old.last_index < message.index
                    or (message.kind == Kind.VOTE_ANSWER and state.vote != message.receiver)
                )
                if state.term < message.term or lacks:
                    return True
        return False

    def can_spare(self, number: int) -> bool:
        """Without it, and those that are gone, majorities are left as far as anybody knows."""
        gone = {*self.gone, number}
        configurations = [node.raft.configuration for node in self.nodes.values()]
        return all(has_majority(configuration, gone) for configuration in configurations)

    def replace(self) -> None:
        """What the leader's shell does: first a learner, and when it has all, a voter in the old one's place."""
        if self.replacing is None:
            return
        old, new = self.replacing
        for node in list(self.nodes.values()):
            raft, configuration = node.raft, node.raft.configuration
            if raft.role != Role.LEADER or node.number in self.paused:
                continue
            if new not in configuration.members:
                self.propose_change(node, [Change(ChangeKind.LEARNER, new)])
            elif old in configuration.all_voters and raft.has_caught_up(new):
                self.propose_change(node, [Change(ChangeKind.VOTER, new), Change(ChangeKind.REMOVE, old)])
            elif old in configuration.members and old not in configuration.all_voters:
                self.propose_change(node, [Change(ChangeKind.REMOVE, old)])

    def look_whether_replaced(self, configuration: Configuration) -> None:
        if self.replacing is not None:
            old, new = self.replacing
            if old not in configuration.members and new in configuration.members:
                self.replacing = None


def has_majority(configuration: Configuration, gone: set[int]) -> bool:
    """Whether both majorities are possible without these."""
    groups = (configuration.voters, configuration.outgoing)
    return all(2 * len(group - gone) > len(group) for group in groups if group)
