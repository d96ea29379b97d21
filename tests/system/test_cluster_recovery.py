"""`abi cluster recover`: one survivor founds a new incarnation, which the old one refuses and is refused by."""

from __future__ import annotations

import signal

from abi.wire import incarnations
from tests.system.clusters import CONFIG, Hosts, await_status, join, noted, refused, status, token_of
from tests.system.harness import Daemon


def configured(host: Daemon, config: str) -> None:
    """From now on."""
    host.config_file.write_text(config)
    host.ask("reload")


def test_recovery_founds_a_new_incarnation_that_the_old_refuses(hosts: Hosts) -> None:
    one, two, three = hosts.cluster(3, before="import abid.cluster.recovering as r\nr.QUORUM_S = 25")
    assert refused(one, "abi", "cluster", "recover", "--yes")["code"] == "quorum"
    for daemon in (two, three):
        daemon.kill(signal.SIGKILL)
        daemon.wait()
    await_status(one, lambda told: told["role"] != "leader", "it steps down without its majority")
    configured(one, CONFIG + "request_timeout_ms = 500\n")  # nobody is there to be waited for
    unsure = refused(one, "abi", "cluster", "recover")
    assert unsure["code"] == "unsure"
    assert "on one host only" in unsure["message"]
    assert "the 2 other hosts have to leave (--force) and join this one" in unsure["message"]
    incarnation = one.json("abi", "cluster", "recover", "--yes")["incarnation"]
    assert incarnations.generation(incarnation) == 2
    configured(one, CONFIG)
    told = await_status(one, lambda told: told["role"] == "leader", "it leads alone")
    assert len(told["nodes"]) == 1
    two.start()
    told = await_status(one, lambda told: noted(told, "other_incarnation"), "the old one is refused, and one says so")
    assert told["refused"]["other_incarnation"] > 0
    assert "which is older" in noted(told, "other_incarnation")
    told = await_status(two, lambda told: noted(told, "other_incarnation"), "and so does the other side")
    assert "which is newer" in noted(told, "other_incarnation")
    assert {node["state"] for node in told["nodes"] if node["id"] == status(one)["node"]} == {"other_incarnation"}
    assert "leave --force" in two.run("abi", "network", "status").stdout
    done = two.run("abi", "cluster", "leave", "--force")
    assert (done.returncode, "have not agreed" in done.stderr) == (0, True)
    join(two, token_of(one))
    assert len(status(one)["nodes"]) == 2


def test_two_hosts_that_are_both_recovered_are_two_clusters(hosts: Hosts) -> None:
    """Each survivor is made a cluster of its own by a person in a hurry. They refuse each other, and both go on."""
    one, two, three = hosts.cluster(3)
    recovered = {}
    for daemon in (one, two, three):
        daemon.kill(signal.SIGKILL)
        daemon.wait()
    for daemon in (one, two):
        daemon.start()
        recovered[daemon] = daemon.json("abi", "cluster", "recover", "--yes")["incarnation"]
        daemon.kill(signal.SIGKILL)
        daemon.wait()
    assert recovered[one] != recovered[two]
    assert {incarnations.generation(each) for each in recovered.values()} == {2}
    for daemon in (one, two):
        daemon.start()
    place = status(two)["nodes"][0]["address"]
    one.json("abi", "network", "register", "--host", place)
    await_status(two, lambda told: told["refused"].get("other_incarnation"), "one dials two, and is refused")
    for daemon in (one, two):
        told = await_status(daemon, lambda told: told["role"] == "leader", "it leads alone")
        assert (len(told["nodes"]), told["incarnation"]) == (1, recovered[daemon])
