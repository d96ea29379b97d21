"""Anything at any time, at rates that are drawn for each stretch: some faults show in a storm, others only where much
is agreed on before the storm comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from abid.core.raft.messages import Kind
from tests.core.raft.simulation import Cluster, Node

NET_MAX: Final = 400
"""Messages on their way: whoever is slower than his senders loses the rest, as a full socket does."""


@dataclass
class Weather:
    """Probabilities by message and by output, and weights of what else happens."""

    loss: float
    doubling: float
    lateness: float
    late_votes: float
    reordering: float
    crashes_in_output: float
    weights: dict[str, float]

    @classmethod
    def drawn(cls, random: Random) -> Weather:
        def one(*values: float) -> float:
            return random.choice(values)

        weights = {
            "deliver": 60, "process": 60, "tick": one(8, 14, 45), "propose": one(2, 8, 16), "read": one(1, 4),
            "crash": one(0, 1, 5), "come_back": one(1, 3, 8), "pause": one(0, 1, 3), "wake": one(1, 4),
            "partition": one(0, 1, 4), "heal": one(1, 3), "change": one(0, 1, 8), "compact": one(0, 2, 4),
            "transfer": one(0, 1, 3), "leader_lost": one(0, 1, 3), "forget_leader": one(0, 1), "report": one(0, 1),
            "deliver_slow": one(1, 3, 6), "copy_disk": 1, "restore_disk": one(0, 0, 1), "sync": 2,
        }  # fmt: skip
        return cls(
            loss=one(0.0, 0.03, 0.1, 0.3),
            doubling=one(0.0, 0.05, 0.2),
            lateness=one(0.0, 0.05, 0.2),
            late_votes=one(0.0, 0.2, 0.5),
            reordering=one(0.0, 0.3, 1.0),
            crashes_in_output=one(0.0, 0.01, 0.06),
            weights=weights,
        )


class Stretch:
    """So many things happen, in one weather. Every action is a method by its name in the weights."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.random = cluster, cluster.random
        self.weather = Weather.drawn(cluster.random)

    def run(self, steps: int) -> None:
        weights = self.weather.weights
        actions: dict[str, Callable[[], None]] = {name: getattr(self, name) for name in weights}
        for name in self.random.choices(list(weights), list(weights.values()), k=steps):
            actions[name]()

    def on_some(self, action: Callable[[Node], None]) -> None:
        node = self.cluster.some()
        if node is not None:
            action(node)

    # What is on its way.

    def deliver(self) -> None:
        cluster, random, weather, net = self.cluster, self.random, self.weather, self.cluster.net
        if not net:
            return
        while len(net) > NET_MAX:
            cluster.lose(net.pop(0))
        place = random.randrange(len(net)) if random.random() < weather.reordering else 0
        message = net[place]
        if random.random() >= weather.doubling:  # else it comes again
            del net[place]
        elif message.kind == Kind.SNAPSHOT:
            cluster.delay(message)  # large ones much later
        is_vote = message.kind == Kind.VOTE_ANSWER
        if random.random() < weather.loss or (message.sender, message.receiver) in cluster.blocked:
            cluster.lose(message)
        elif random.random() < (weather.late_votes if is_vote else weather.lateness):
            cluster.delay(message)
        else:
            cluster.hand_over(message)

    def deliver_slow(self) -> None:
        self.cluster.deliver_slow()

    def partition(self) -> None:
        """Sometimes in one direction only."""
        numbers = self.cluster.numbers
        side = set(self.random.sample(numbers, self.random.randint(1, len(numbers) - 1)))
        blocked = {(a, b) for a in side for b in numbers if b not in side}
        if self.random.random() < 0.6:
            blocked |= {(b, a) for a, b in blocked}
        self.cluster.blocked = blocked

    def heal(self) -> None:
        self.cluster.blocked = set()

    # Nodes.

    def tick(self) -> None:
        self.on_some(self.cluster.tick)

    def process(self) -> None:
        node = self.cluster.some()
        if node is not None and node.raft.has_output:
            crashes = self.random.random() < self.weather.crashes_in_output
            self.cluster.carry_out(node, crash_at=self.random.randrange(4) if crashes else None, takes_time=True)

    def crash(self) -> None:
        if self.cluster.nodes:
            self.cluster.stop(self.random.choice(list(self.cluster.nodes.values())))

    def come_back(self) -> None:
        if self.cluster.down:
            self.cluster.restart(self.random.choice(sorted(self.cluster.down)))

    def pause(self) -> None:
        self.on_some(lambda node: self.cluster.paused.add(node.number))

    def wake(self) -> None:
        if self.cluster.paused:
            self.cluster.paused.remove(self.random.choice(sorted(self.cluster.paused)))

    def sync(self) -> None:
        """The operating system writes by itself."""
        self.on_some(lambda node: node.disk.sync())

    def copy_disk(self) -> None:
        self.on_some(self.cluster.copy_disk)

    def restore_disk(self) -> None:
        self.cluster.restore_disk()

    # What is asked of them.

    def propose(self) -> None:
        self.on_some(self.cluster.propose)

    def read(self) -> None:
        self.on_some(self.cluster.read)

    def change(self) -> None:
        self.on_some(self.cluster.change)

    def compact(self) -> None:
        self.on_some(self.cluster.compact)

    def transfer(self) -> None:
        self.on_some(lambda node: node.raft.transfer(self.random.choice(self.cluster.numbers)))

    def leader_lost(self) -> None:
        self.on_some(lambda node: node.raft.leader_lost(node.raft.leader))

    def forget_leader(self) -> None:
        self.on_some(lambda node: node.raft.forget_leader())

    def report(self) -> None:
        """What the transport has to say, right or wrong."""
        node, other = self.cluster.some(), self.cluster.some()
        if node is not None and other is not None:
            node.raft.unreachable(other.number)
            node.raft.snapshot_ended(other.number, arrived=self.random.random() < 0.5)
