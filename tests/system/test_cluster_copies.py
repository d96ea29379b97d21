"""Copied and restored state: who was there first stays who it is, and what comes back is somebody new to the votes."""

from __future__ import annotations

import json
import shutil
import signal
from typing import Any

import pytest

from tests.hosts import hosts as net
from tests.hosts import kernel
from tests.hosts.daemon import HostDaemon
from tests.system.clusters import Hosts, await_status, join, noted, refused, status, token_of
from tests.system.harness import Daemon

PATIENT = """
import abid.cluster.admission as admission, abid.cluster.elsewhere as elsewhere, abid.cluster.peers as peers
peers.PROBE_S = admission.PROBE_S = elsewhere.PROBE_S = 20
elsewhere.ASKED_S = 25
"""
"""An original that a busy machine keeps from answering is not taken for dead."""
BY_IPV4 = '[network]\ndiscovery_enabled = false\nbind = "{}"\n'


def test_a_copy_of_a_member_that_lives_is_refused(hosts: Hosts) -> None:
    one, two = hosts.cluster(2, PATIENT)
    (copy,) = hosts.add()
    copy.kill(signal.SIGKILL)
    copy.wait()
    (copy.state_dir / "identity.json").write_text((two.state_dir / "identity.json").read_text())
    copy.start()
    error = refused(copy, "abi", "cluster", "join", ABI_JOIN_TOKEN=token_of(one))
    assert error["code"] == "copy"
    assert await_status(one, lambda told: len(told["nodes"]) == 2, "still two")


def copied(host: Daemon, to: Daemon) -> None:
    """The state directory of another host, as a backup that is put back in the wrong place."""
    to.kill(signal.SIGKILL)
    to.wait()
    shutil.rmtree(to.state_dir / "cluster", ignore_errors=True)
    shutil.copytree(host.state_dir / "cluster", to.state_dir / "cluster")
    shutil.copy(host.state_dir / "identity.json", to.state_dir / "identity.json")
    file = to.state_dir / "cluster" / "standing.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "port": 0}))  # both are on this machine
    to.start()


def test_a_copied_state_directory_never_takes_the_place_of_the_first(hosts: Hosts) -> None:
    one, two, three = hosts.cluster(3, PATIENT)
    (copy,) = hosts.add()
    node = status(two)["node"]
    copied(two, copy)
    told = await_status(copy, lambda told: told["failed"], "it stands aside")
    file = copy.state_dir / "cluster" / "aside.json"
    assert (told["joined"], str(file) in told["failed_hint"], file.exists()) == (True, True, True)
    assert refused(copy, "abi", "cluster", "token")["code"] == "out_of_cluster"
    for host, whose in ((one, f"the identity of node {node}"), (two, "this host's identity")):
        told = await_status(host, lambda told: noted(told, "copy"), "those who met both say so")
        assert whose in noted(told, "copy")
    assert "a state directory was copied" in two.run("abi", "network", "status").stdout

    two.kill(signal.SIGTERM)
    two.wait()
    copy.kill(signal.SIGKILL)
    copy.wait()
    copy.start()

    def state(told: Any) -> str:
        return str(next(each["state"] for each in told["nodes"] if each["id"] == node))

    await_status(one, lambda told: state(told) == "stopped", "it is gone")
    assert status(copy)["failed"]
    two.start()
    await_status(two, lambda told: told["leader"] and not told["failed"], "it is who it was")

    left = copy.run("abi", "cluster", "leave", "--force")
    assert (left.returncode, "identity of its own" in left.stderr) == (0, True)
    token = token_of(three)
    assert refused(copy, "abi", "cluster", "join", ABI_JOIN_TOKEN=token)["code"] == "is_member"
    copy.kill(signal.SIGTERM)
    copy.wait()
    copy.start()
    assert len(join(copy, token)["nodes"]) == 4


def test_a_copy_that_wakes_on_another_machine_waits_for_the_first(hosts: Hosts) -> None:
    """It was away when the copy came, for as long as a restart takes."""
    on_machine = PATIENT + "import abid.cluster.twins\nabid.cluster.twins.machine = lambda: {!r}\n"
    one, two, _ = hosts.cluster(3, on_machine.format("here"))
    (copy,) = hosts.add(before=on_machine.format("there"))
    two.kill(signal.SIGTERM)
    two.wait()
    copied(two, copy)
    await_status(one, lambda told: told["refused"].get("moved"), "it has to wait")
    await_status(copy, lambda told: noted(told, "moved"), "it says so")
    two.start()
    await_status(two, lambda told: told["leader"], "it is who it was")
    await_status(copy, lambda told: told["failed"], "the copy stands aside")


def test_a_member_with_a_restored_disk_goes_on_as_a_new_one(hosts: Hosts) -> None:
    """It may have promised what it does not know any more: the others remember, and it votes under that number no
    more."""
    one, _, three = hosts.cluster(3)
    place = three.state_dir / "cluster"
    three.kill(signal.SIGKILL)
    three.wait()
    backup = three.folder / "backup"
    shutil.copytree(place, backup)
    three.start()
    await_status(three, lambda told: told["leader"], "it follows again")
    for _ in range(3):
        token_of(one)
    committed = status(one)["committed"]
    before = await_status(three, lambda told: told["applied"] >= committed, "it knows what was agreed on")
    number = before["number"]
    for _ in range(2):  # the second time, the disk does not even know of the other number
        three.kill(signal.SIGKILL)
        three.wait()
        shutil.rmtree(place)
        shutil.copytree(backup, place)
        three.start()

        def is_another(told: Any, old: int = number) -> bool:
            return bool(told["joined"] and told["number"] > old)

        after = await_status(three, is_another, "it has another number")
        assert after["node"] == before["node"]
        number = after["number"]
        told = await_status(
            three, lambda told: told.get("leader") and len(told["voters"]) == 3, "it learns, and votes again"
        )
        assert [node["number"] for node in told["nodes"] if node["id"] == after["node"]] == [number]
        assert len(told["nodes"]) == 3


@pytest.mark.skipif(bool(kernel.why_not()), reason=kernel.why_not())
def test_a_copy_and_its_original_that_meet_different_members_are_not_both_let_in() -> None:
    """The third member cannot reach the original, and would take the copy for it."""
    with net.Hosts(4) as places:
        one, two, three, copy = members = [
            HostDaemon(host, cpus=1, config=BY_IPV4.format(host.address), before=PATIENT) for host in places
        ]
        try:
            assert one.ask("cluster-init")["role"] == "leader"
            token = token_of(one, uses=2)
            for member in (two, three):
                join(member, token)
            await_status(one, lambda told: len(told["voters"]) == 3, "all vote")
            node = status(two)["node"]
            three.kill(signal.SIGKILL)
            three.wait()
            for sides in ((places[1], places[2]), (places[2], places[1])):
                places.block(*sides)
            three.start()
            await_status(three, lambda told: told["leader"], "it follows")
            copied(two, copy)
            await_status(copy, lambda told: told["failed"], "it stands aside")
            told = await_status(three, lambda told: told["refused"].get("copy"), "it was sent away")
            assert f"the identity of node {node}" in noted(told, "copy")
            assert not next(each for each in told["nodes"] if each["id"] == node)["connected"]
            places.heal()
            told = await_status(three, lambda told: sum(n["connected"] for n in told["nodes"]) == 3, "they are three")
            assert not status(two)["failed"]
        finally:
            for member in members:
                member.close()
