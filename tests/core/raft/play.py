"""Several members and what is on its way between them, moved by the commands of etcd's scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from abid.core.raft.change import Proposal, Transition, encoded
from abid.core.raft.configuration import Change, ChangeKind, Configuration
from abid.core.raft.interface import Dropped, Settings, Stranger
from abid.core.raft.log import Log
from abid.core.raft.messages import EntryKind, HardState, Message, Snapshot
from abid.core.raft.raft import Raft
from tests.core.raft import in_words
from tests.core.raft.disk import Disk
from tests.core.raft.scripts import Step

LETTERS = {"v": ChangeKind.VOTER, "l": ChangeKind.LEARNER, "r": ChangeKind.REMOVE, "u": ChangeKind.UPDATE}
TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.IMPLICIT, "explicit": Transition.EXPLICIT}


def changes_of(lines: Iterable[str]) -> tuple[Change, ...]:
    return tuple(Change(LETTERS[word[0]], int(word[1:])) for line in lines for word in line.split())


class Member:
    """A member on its disk, and the application above it: it knows what it applied."""

    def __init__(self, number: int, disk: Disk, settings: Settings) -> None:
        self.disk, self.settings = disk, settings
        self.applied = disk.snapshot
        log = Log(disk.snapshot.index, disk.snapshot.term, disk.entries)
        begin = disk.snapshot.configuration
        self.raft = Raft(number, log, begin, disk.hard_state, lambda low, _: low, lambda: self.applied, settings)


class Play:
    """``said`` is what the current command has to say."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.stopped: dict[int, Member] = {}
        self.under_way: list[Message] = []
        self.said: list[str] = []
        self.is_quiet = False
        self._indent = ""
        self.commands: dict[str, Callable[[Step], None]] = {
            "add-nodes": self.add_nodes,
            "campaign": lambda step: self.raft(step).campaign(),
            "compact": self.compact,
            "deliver-msgs": self.deliver,
            "forget-leader": lambda step: self.raft(step).forget_leader(),
            "log-level": self.log_level,
            "process-ready": lambda step: self.process(self.first(step)),
            "propose": self.propose,
            "propose-conf-change": self.propose_change,
            "raft-log": lambda step: self.show_log(self.first(step)),
            "raft-state": lambda _: self.show_states(),
            "report-unreachable": lambda step: self.raft(step).unreachable(self.numbers(step)[1]),
            "set-randomized-election-timeout": self.set_timeout,
            "stabilize": self.stabilize,
            "status": self.show_progress,
            "tick-heartbeat": lambda step: self.raft(step).tick(),
        }

    def run(self, step: Step) -> list[str]:
        """What the command has to say; ``ok`` for nothing."""
        self.said = []
        was_quiet = self.is_quiet
        self.commands[step.command](step)
        quiet = was_quiet or self.is_quiet or step.words.get("log-level") == ["none"]
        return ["ok"] if quiet or not self.said else self.said

    # What a step says.

    @staticmethod
    def numbers(step: Step) -> list[int]:
        return [int(word) for word, value in step.words.items() if word.isdigit() and not value]

    def first(self, step: Step) -> int:
        return self.numbers(step)[0]

    def raft(self, step: Step) -> Raft:
        return self.members[self.first(step)].raft

    def say(self, *lines: str) -> None:
        self.said += [self._indent + line for line in lines]

    def switched(self, raft: Raft) -> None:
        self.say(f"INFO {raft.number} switched to configuration {in_words.of_configuration(raft.configuration)}")

    # Commands.

    def log_level(self, step: Step) -> None:
        self.is_quiet = "none" in step.words

    def add_nodes(self, step: Step) -> None:
        def group(name: str) -> frozenset[int]:
            return frozenset(map(int, step.words.get(name, [])))

        def says(name: str) -> bool:
            return step.words.get(name) == ["true"]

        def number(name: str, default: int) -> int:
            return int(step.words.get(name, [str(default)])[0])

        settings = Settings(
            election_ticks=3,
            pre_vote=says("prevote"),
            check_quorum=says("checkquorum"),
            reads_by_lease=step.words.get("read-only") == ["lease-based"],
            inflight_max=number("inflight", 1 << 30),
            apply_bytes_max=number("max-committed-size-per-ready", 1 << 30),
            leave_when_removed=says("step-down-on-removal"),
            rest_before_leaving=False,
            votes_tell_commit=False,
            check_changes=not says("disable-conf-change-validation"),
        )
        configuration = Configuration(voters=group("voters"), learners=group("learners"))
        index = number("index", 0)
        for _ in range(self.first(step)):
            node = max({*self.members, *self.stopped}, default=0) + 1
            disk = Disk(HardState(commit=index), snapshot=Snapshot(index, 1 if index else 0, configuration))
            self.members[node] = Member(node, disk, settings)
            self.switched(self.members[node].raft)

    def propose(self, step: Step) -> None:
        _, data = list(step.words)
        try:
            self.raft(step).propose(data.encode())
        except Dropped:
            self.say("raft proposal dropped")

    def propose_change(self, step: Step) -> None:
        transition = TRANSITIONS[step.words.get("transition", ["auto"])[0]]
        self.raft(step).propose_change(encoded(Proposal(changes_of(step.input), transition)))

    def set_timeout(self, step: Step) -> None:
        self.raft(step).election_timeout = int(step.words["timeout"][0])

    def compact(self, step: Step) -> None:
        node, index = self.numbers(step)
        self.members[node].raft.log.compact(index)
        self.show_log(node)

    def process(self, node: int) -> None:
        """One output: stored, applied, sent, done."""
        member = self.members[node]
        raft = member.raft
        output = raft.output()
        self.say(*in_words.of_output(output))
        member.disk.store(output)
        if output.snapshot is not None:
            member.applied = output.snapshot
        for entry in output.committed:
            if entry.kind == EntryKind.CHANGE:
                raft.apply_change(entry.data)
                self.switched(raft)
            member.applied = Snapshot(entry.index, entry.term, raft.configuration)
        self.under_way += output.messages
        raft.done()

    def receive(self, node: int, *, drop: bool = False) -> None:
        """All that is on its way to this member."""
        mine = [message for message in self.under_way if message.receiver == node]
        self.under_way = [message for message in self.under_way if message.receiver != node]
        for message in mine:
            first, *rest = in_words.of_message(message)
            self.say(f"dropped: {first}" if drop else first, *rest)
            if drop:
                continue
            raft = self.members[node].raft
            before = raft.configuration
            try:
                raft.step(message)
            except Stranger:
                self.say("raft: cannot step as peer not found")
            if raft.configuration != before:
                self.switched(raft)

    def deliver(self, step: Step) -> None:
        for node in self.numbers(step):
            self.receive(node)
        for word in step.words.get("drop", []):
            self.receive(int(word), drop=True)

    def stabilize(self, step: Step) -> None:
        """Until nothing moves among these members, or among all."""
        nodes = sorted(self.numbers(step)) or sorted(self.members)
        moved = True
        while moved:
            moved = False
            for node in nodes:
                if self.members[node].raft.has_output:
                    moved = True
                    self._under(f"> {node} handling Ready", lambda node=node: self.process(node))
            for node in nodes:
                if any(message.receiver == node for message in self.under_way):
                    moved = True
                    self._under(f"> {node} receiving messages", lambda node=node: self.receive(node))

    def _under(self, title: str, action: Callable[[], None]) -> None:
        self.say(title)
        self._indent = "  "
        action()
        self._indent = ""

    # What it looks like.

    def show_log(self, node: int) -> None:
        self.say(*map(in_words.of_entry, self.members[node].raft.log.entries))

    def show_states(self) -> None:
        for node, member in self.members.items():
            raft = member.raft
            votes = "Voter" if node in raft.configuration.all_voters else "Non-Voter"
            self.say(f"{node}: {in_words.ROLES[raft.role]} ({votes}) Term:{raft.term} Lead:{raft.leader}")

    def show_progress(self, step: Step) -> None:
        raft = self.raft(step)
        for node, progress in raft.members.items():
            learner = node in raft.configuration.learners
            self.say(f"{node}: {in_words.of_progress(progress, learner=learner)}")
