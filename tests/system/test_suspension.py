"""A host that was suspended: its boot time went on while its monotonic time stood still."""

from __future__ import annotations

from tests.system.clusters import Hosts, await_status, leader_of, status
from tests.system.harness import Daemon

SLEEPER = """
import os, time
_clock_gettime_ns = time.clock_gettime_ns

def clock_gettime_ns(clock):
    slept = os.path.exists(os.path.join(os.environ["ABI_STATE_DIR"], "slept"))
    return _clock_gettime_ns(clock) + (clock == time.CLOCK_BOOTTIME and slept) * 3600 * 10**9

time.clock_gettime_ns = clock_gettime_ns
"""
"""The kernel's clocks cannot be set for one process while it runs."""
NO_HURRY = """
import msgspec, abid.cluster.consensus as consensus
consensus.SETTINGS = msgspec.structs.replace(consensus.SETTINGS, election_ticks=60, quorum_ticks=120)
"""
"""Nobody stands for election because a busy machine kept the leader from speaking."""


def sleep(host: Daemon) -> None:
    """As if it had been suspended for an hour just now."""
    (host.state_dir / "slept").touch()
    host.await_log("suspended for")


def judges_nobody(member: Daemon) -> bool:
    """It may suspect somebody on a busy machine, and takes that back."""
    await_status(member, lambda told: [node["state"] for node in told["nodes"]] == ["alive"] * 3, "all are alive")
    return "is dead" not in member.log()


def test_a_leader_that_was_suspended_steps_down_and_all_go_on(hosts: Hosts) -> None:
    """What it may have missed is another leader; so it asks before it leads on, and judges nobody meanwhile."""
    members = hosts.cluster(3, before=SLEEPER)
    leader = leader_of(members)
    before = status(leader)
    sleep(leader)
    after = await_status(leader, lambda told: told["leader"] and told["term"] > before["term"], "an election")
    for member in members:
        await_status(member, lambda told: told["term"] >= after["term"] and told["leader"], "all know of it")
        assert judges_nobody(member)


def test_a_follower_that_was_suspended_disturbs_nobody(hosts: Hosts) -> None:
    members = hosts.cluster(3, before=SLEEPER + NO_HURRY)
    before = status(members[0])
    sleep(members[1])
    members[1].ask("cluster-token")
    after = status(members[1])
    assert (after["leader"], after["term"]) == (before["leader"], before["term"])
    assert judges_nobody(members[1])
