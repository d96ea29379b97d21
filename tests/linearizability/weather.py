"""What befalls a cluster while its clients ask. Each returns when it is over and all daemons run again; ``hold_s`` is
how long it lasts, where that can be chosen."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.hosts import kernel
from tests.linearizability.clients import REQUEST_S
from tests.system.harness import eventually
from tests.torture.fleet import Fleet, wanted_voters

OPTIONS: Final = f"[network]\nrequest_timeout_ms = {REQUEST_S * 1000:.0f}\n"


@contextmanager
def cluster(count: int = 3, before: str = "") -> Iterator[Fleet]:
    """Of so many hosts, on IPv4 alone: over IPv6 they would find each other whatever is lost."""
    with Fleet(count, options=OPTIONS, before=before) as fleet:
        for host in (fleet.hosts[number] for number in range(count)):
            kernel.tell("ip", "-n", host.namespace, "addr", "del", f"{host.address_v6}/64", "dev", "eth0")
        fleet.form()
        yield fleet


def sockets(fleet: Fleet) -> list[str]:
    return [str(daemon.runtime_dir / "abid.sock") for daemon in fleet.daemons]


def leader_killed(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    _killed(fleet, fleet.await_leader()[0])


def follower_killed(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    _killed(fleet, lots.choice(_followers(fleet)))


def all_killed(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    fleet.kill(*range(len(fleet)))
    fleet.restart(*range(len(fleet)))
    fleet.await_leader()


def two_killed(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    """With a majority gone, nothing is agreed on."""
    numbers = lots.sample(range(len(fleet)), 2)
    fleet.kill(*numbers)
    time.sleep(hold_s)
    fleet.restart(*numbers)


def leader_powered_off(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    leader, _ = fleet.await_leader()
    fleet.power_off(leader)
    time.sleep(hold_s)
    fleet.restart(leader)


def leader_cut_off(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    leader, _ = fleet.await_leader()
    others = [fleet.hosts[number] for number in range(len(fleet)) if number != leader]
    fleet.hosts.split([fleet.hosts[leader]], others)
    time.sleep(hold_s)
    fleet.hosts.heal()


def leader_cut_off_and_killed(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    """What it stored and nobody else has is on its disk when it comes back."""
    leader, _ = fleet.await_leader()
    others = [fleet.hosts[number] for number in range(len(fleet)) if number != leader]
    fleet.hosts.split([fleet.hosts[leader]], others)
    time.sleep(hold_s)
    fleet.kill(leader)
    fleet.hosts.heal()
    fleet.restart(leader)


def follower_cut_off(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    one = lots.choice(_followers(fleet))
    fleet.hosts.split([fleet.hosts[one]], [fleet.hosts[number] for number in range(len(fleet)) if number != one])
    time.sleep(hold_s)
    fleet.hosts.heal()


def all_apart(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    fleet.hosts.split(*([fleet.hosts[number]] for number in range(len(fleet))))
    time.sleep(hold_s)
    fleet.hosts.heal()


def one_way(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    """What one says does not reach one or all of the others."""
    speaker = lots.randrange(len(fleet))
    others = [number for number in range(len(fleet)) if number != speaker]
    for number in lots.sample(others, lots.randint(1, len(others))):
        fleet.hosts.block(fleet.hosts[speaker], fleet.hosts[number])
    time.sleep(hold_s)
    fleet.hosts.heal()


def leader_stopped(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    leader, _ = fleet.await_leader()
    fleet.freeze(leader)
    time.sleep(hold_s)
    fleet.thaw(leader)


def leader_stopped_and_cut_off(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    """It wakes where it hears nobody, and may think for a while that it leads."""
    leader, _ = fleet.await_leader()
    others = [fleet.hosts[number] for number in range(len(fleet)) if number != leader]
    fleet.freeze(leader)
    fleet.hosts.split([fleet.hosts[leader]], others)
    time.sleep(hold_s)
    fleet.thaw(leader)
    time.sleep(hold_s)
    fleet.hosts.heal()


def member_leaves(fleet: Fleet, lots: random.Random, hold_s: float) -> None:
    """And joins again, under another number. With two members one votes: it may not be lost before all do again."""
    fleet.await_leader()
    one = lots.randrange(len(fleet))
    fleet.ask(one, "cluster-leave")
    others = [number for number in range(len(fleet)) if number != one]
    time.sleep(hold_s)
    leader, _ = fleet.await_leader(among=others)
    fleet.ask(one, "cluster-join", token=fleet.ask(leader, "cluster-token")["token"])
    eventually(lambda: _voters(fleet) == wanted_voters(len(fleet)), "all vote again")


Weather = Callable[[Fleet, random.Random, float], None]
WEATHERS: Final[tuple[Weather, ...]] = (
    leader_killed,
    follower_killed,
    two_killed,
    all_killed,
    leader_powered_off,
    leader_cut_off,
    leader_cut_off_and_killed,
    follower_cut_off,
    all_apart,
    one_way,
    leader_stopped,
    leader_stopped_and_cut_off,
    member_leaves,
)


def _killed(fleet: Fleet, number: int) -> None:
    fleet.kill(number)
    fleet.await_leader()
    fleet.restart(number)


def _voters(fleet: Fleet) -> int:
    leader = fleet.leader()
    return 0 if leader is None else len(fleet.status(leader)["voters"])


def _followers(fleet: Fleet) -> list[int]:
    leader, _ = fleet.await_leader()
    return [number for number in range(len(fleet)) if number != leader]
