"""Members that others remove, or that leave by force: all agree first, and nobody goes by a single word."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from abid.cluster import remembered
from tests.system.clusters import Hosts, await_status, join, refused, status, token_of
from tests.system.harness import eventually


def test_who_was_removed_is_refused_everywhere(hosts: Hosts) -> None:
    one, two, three = hosts.cluster(3)
    node = status(three)["node"]
    (place,) = (told["address"] for told in status(one)["nodes"] if told["id"] == node)
    one.json("abi", "network", "register", "--host", place)
    eventually(
        lambda: [peer.node.hex() for peer in remembered.load(one.state_dir / "cluster")] == [node], "its address"
    )
    assert one.json("abi", "network", "remove", "--yes", node) == {"removed": node}
    told = await_status(three, lambda told: told["removed"], "it hears of it")
    assert told["joined"] is False
    await_status(two, lambda told: len(told["nodes"]) == 2, "the others agree")
    eventually(lambda: not remembered.load(one.state_dir / "cluster"), "it is not dialled any more")
    assert "removed from its cluster" in three.run("abi", "network", "status").stdout
    place = three.state_dir / "cluster"
    assert [name for name in ("ca.key", "secret") if (place / name).exists()] == []
    three.kill(signal.SIGKILL)
    three.wait()
    three.start()
    assert status(three)["removed"], "it knows that without asking"
    three.run("abi", "cluster", "leave", "--force")
    assert refused(three, "abi", "cluster", "join", ABI_JOIN_TOKEN=token_of(one))["code"] == "revoked"


def test_the_way_back_of_a_host_that_was_removed(hosts: Hosts) -> None:
    """Each word names the next one that works, up to where it is a member again."""
    one, two = hosts.cluster(2)
    node = status(two)["node"]
    one.json("abi", "network", "remove", "--yes", node)
    await_status(two, lambda told: told["removed"], "it hears of it")
    said = two.run("abi", "network", "status").stdout
    assert "removed from its cluster" in said
    assert "`abi cluster leave`" in said
    for command in (("token",), ("init",), ("join",)):
        error = refused(two, "abi", "cluster", *command, ABI_JOIN_TOKEN=token_of(one))
        assert "removed from its cluster" in error["message"]
        assert "`abi cluster leave`" in error["hint"]
    identity = str(two.state_dir / "identity.json")
    done = two.run("abi", "cluster", "leave")
    assert done.returncode == 0, done.stderr
    assert f"remove {identity}" in done.stderr
    assert (status(two)["removed"], status(two)["joined"]) == ("", False)
    error = refused(two, "abi", "cluster", "join", ABI_JOIN_TOKEN=token_of(one))
    assert (error["code"], f"remove {identity}" in error["hint"]) == ("revoked", True)
    two.kill(signal.SIGKILL)
    two.wait()
    Path(identity).unlink()
    two.start()
    told = join(two, token_of(one))
    assert (told["joined"], told["node"] != node) == (True, True)


LIAR = """
import os
import abid.cluster.member
from abid.cluster.refusal import Code, refused
honest = abid.cluster.member.Member.on_message

def on_message(member, peer, kind, payload):
    if os.path.exists(os.path.join(os.environ["ABI_STATE_DIR"], "lies")):
        raise refused(Code.REVOKED, "this host was removed from the cluster")
    honest(member, peer, kind, payload)

abid.cluster.member.Member.on_message = on_message
"""


def test_one_member_that_says_so_removes_nobody(hosts: Hosts) -> None:
    """It tells all others that they were removed, and goes on until it is removed itself."""
    one, two = hosts.cluster(2)
    (liar,) = hosts.add(before=LIAR)
    join(liar, token_of(one))
    await_status(one, lambda told: len(told["voters"]) == 3, "all vote")
    lies, node = liar.state_dir / "lies", status(liar)["node"]
    lies.touch()
    for host in (one, two):
        told = await_status(host, lambda told: told["told_removed"] == [node], "it is told so")
        assert (told["joined"], told["removed"]) == (True, "")
    assert f"node {node} says that this host was removed" in two.run("abi", "network", "status").stdout
    assert token_of(two), "the two agree as before"
    lies.unlink()
    for host in (one, two):
        await_status(host, lambda told: not told["told_removed"], "it speaks with them again")
    lies.touch()
    assert one.json("abi", "network", "remove", "--yes", node) == {"removed": node}
    await_status(liar, lambda told: told["removed"], "the others are a majority, and are believed")
    assert [status(host)["joined"] for host in (one, two)] == [True, True]


def test_the_only_voter_is_removed_by_another(hosts: Hosts) -> None:
    """It is heard until another votes, or nobody could go on."""
    leader, other = hosts.cluster(2)
    node = status(leader)["node"]
    assert other.json("abi", "network", "remove", "--yes", node) == {"removed": node}
    await_status(leader, lambda told: told["removed"], "it hears of it")
    own = status(other)["node"]
    told = await_status(other, lambda told: (told["leader"], told["voters"]) == (own, [own]), "another leads")
    assert len(told["nodes"]) == 1
    assert token_of(other)


QUICK_TO_BURY = """
import functools
import abid.cluster.health
from abid.core.membership.timings import SECOND, Settings
settings = Settings(suspicion_min_ns=2 * SECOND, suspicion_max_ns=2 * SECOND, last_look_ns=SECOND)
abid.cluster.health.Membership = functools.partial(abid.cluster.health.Membership, settings=settings)
"""


def test_one_of_two_voters_that_are_left_is_removed(hosts: Hosts) -> None:
    """The third is dead, so the two have to agree on who votes before one of them can go."""
    one, two, dead = hosts.cluster(3, QUICK_TO_BURY)
    gone = status(dead)["node"]
    dead.kill(signal.SIGKILL)
    dead.wait()

    def state(told: Any) -> str:
        return str(next(node["state"] for node in told["nodes"] if node["id"] == gone))

    await_status(one, lambda told: state(told) == "dead", "it is held for dead")
    node = status(two)["node"]
    assert one.json("abi", "network", "remove", "--yes", node) == {"removed": node}
    await_status(two, lambda told: told["removed"], "it hears of it")
    told = await_status(one, lambda told: told["role"] == "leader" and len(told["voters"]) == 1, "one goes on")
    assert len(told["nodes"]) == 2
    assert token_of(one)


def test_who_leaves_by_force_leaves_by_agreement_if_there_can_be_one(hosts: Hosts) -> None:
    """Else two of three that go so would take the majority with them."""
    one, two, three = hosts.cluster(3, before="import abid.cluster.leaving\nabid.cluster.leaving.FORCED_S = 25")
    for host in (three, two):
        done = host.run("abi", "cluster", "leave", "--force")
        assert (done.returncode, done.stdout) == (0, "this host belongs to no cluster, and the others agreed\n")
    await_status(one, lambda told: len(told["nodes"]) == 1, "it is alone")
    assert token_of(one)
