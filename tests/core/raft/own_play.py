"""What etcd's scripts have no commands for: connections that close, members that stop, disks that are put back."""

from __future__ import annotations

from abid.core.raft.raft import Raft
from tests.core.raft.disk import Disk
from tests.core.raft.play import Member, Play
from tests.core.raft.scripts import Step


class OwnPlay(Play):
    """``caught-up LEADER MEMBER``, ``connection-lost NODE TO``, ``copy-disk NODE``, ``greet NODE``, ``restart NODE``,
    ``restore-disk NODE``, ``stop NODE``, ``tick NODE… times=N``, beside etcd's."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[int, Disk] = {}
        self.commands |= {
            "caught-up": self.say_whether_caught_up,
            "connection-lost": lambda step: self.raft(step).leader_lost(self.numbers(step)[1]),
            "copy-disk": self.copy_disk,
            "greet": self.greet,
            "restart": self.restart,
            "restore-disk": self.restore_disk,
            "stop": self.stop,
            "tick": self.tick,
        }

    def tick(self, step: Step) -> None:
        """All of them, as often; who has turned to something else says so."""
        for place in range(int(step.words.get("times", ["1"])[0])):
            for node in self.numbers(step):
                raft = self.members[node].raft
                before = raft.role
                raft.tick()
                if raft.role != before:
                    self.say(f"tick {place + 1}: {node} becomes {raft.role.value}")

    def stop(self, step: Step) -> None:
        """What is not on the disk is lost, and what is on its way to it."""
        node = self.first(step)
        self.stopped[node] = self.members.pop(node)
        self.under_way = [message for message in self.under_way if message.receiver != node]

    def restart(self, step: Step) -> None:
        node = self.first(step)
        member = self.stopped.pop(node)
        self.members[node] = Member(node, member.disk, member.settings)
        self.say(self.where(self.members[node].raft))

    def copy_disk(self, step: Step) -> None:
        self.copies[self.first(step)] = self.members[self.first(step)].disk.copy()

    def restore_disk(self, step: Step) -> None:
        self.stopped[self.first(step)].disk = self.copies[self.first(step)].copy()

    def greet(self, step: Step) -> None:
        """It connects to all and says where it stands."""
        raft = self.raft(step)
        self.say(self.where(raft))
        for node, member in self.members.items():
            if node != raft.number:
                missing = member.raft.recollection.missing(raft.number, raft.standing)
                self.say(f"{node}: {'welcome' if missing is None else f'refused, {missing}'}")

    @staticmethod
    def where(raft: Raft) -> str:
        standing = raft.standing
        return f"{raft.number}: term {standing.term}, vote {standing.vote}, entries up to {standing.last_index}"

    def say_whether_caught_up(self, step: Step) -> None:
        leader, member = self.numbers(step)
        self.say(f"{member}: {'has all' if self.members[leader].raft.has_caught_up(member) else 'lacks something'}")
