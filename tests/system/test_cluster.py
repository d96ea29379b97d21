"""Hosts that become one cluster: real daemons on loopback, each with its own port, certificates and Raft on disk."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from abi.wire import join_token
from tests.system.clusters import CONFIG, Hosts, await_status, join, leader_of, listening, refused, status, token_of
from tests.system.harness import Daemon, eventually


def test_who_is_in_no_cluster_has_no_port_open_and_loads_nothing_for_it(hosts: Hosts) -> None:
    host = Daemon(config=CONFIG, cpus=1)
    hosts.daemons.append(host)
    told = status(host)
    assert (told["joined"], [node["id"] for node in told["nodes"]]) == (False, [told["node"]])
    assert listening(host.pid) == []
    maps = Path(f"/proc/{host.pid}/maps").read_text()
    assert "_sqlite3." not in maps
    assert "cryptography" not in maps
    assert "`abi cluster init` founds one" in host.run("abi", "network", "status").stdout
    assert refused(host, "abi", "cluster", "token")["code"] == "not_member"
    assert refused(host, "abi", "cluster", "leave")["code"] == "not_member"


def leader_by(host: Daemon) -> str:
    """Whom it takes for the leader, when it knows of one."""
    return str(await_status(host, lambda told: told["leader"], "it knows a leader")["leader"])


def test_three_hosts_become_one_and_lose_their_leader(hosts: Hosts) -> None:
    members = hosts.cluster(3)
    led = leader_of(members)
    before = status(led)
    assert len(before["nodes"]) == 3
    led.kill(signal.SIGKILL)
    led.wait()
    two, three = (host for host in members if host is not led)
    after = await_status(two, lambda told: told["leader"] not in (None, before["node"]), "another leads")
    assert after["term"] > before["term"]
    claimed = await_status(three, lambda told: told["leader"] == leader_by(two), "both say the same")
    assert claimed["term"] >= after["term"]
    led.start()
    again = await_status(led, lambda told: told["leader"] == leader_by(two), "it comes back and follows")
    assert (again["node"], again["number"]) == (before["node"], before["number"]), "it is who it was"


def test_what_was_agreed_on_is_there_after_all_were_killed(hosts: Hosts) -> None:
    members = hosts.cluster(3)
    token_of(members[1])
    before = status(members[0])
    for daemon in members:
        daemon.kill(signal.SIGKILL)
    for daemon in members:
        daemon.wait()
    for daemon in members:
        daemon.start()
    agreed = [node["id"] for node in before["nodes"]], before["voters"]
    after = await_status(
        members[2],
        lambda told: told["leader"] and ([node["id"] for node in told["nodes"]], told["voters"]) == agreed,
        "a leader again, and the same members",
    )
    assert after["term"] > before["term"]


def test_up_to_seven_and_down_again(hosts: Hosts) -> None:
    members = hosts.cluster(7)
    for host in members[3:]:
        assert host.json("abi", "cluster", "leave") == {"left": True, "agreed": True, "next": ""}
        assert status(host)["joined"] is False
        assert listening(host.pid) == []
    await_status(members[0], lambda told: len(told["voters"]) == len(told["nodes"]) == 3, "three vote again")
    for host in members[:2]:
        host.json("abi", "cluster", "leave")
    await_status(
        members[2],
        lambda told: (told["role"], len(told["nodes"]), len(told["voters"])) == ("leader", 1, 1),
        "the last one leads",
    )
    members[2].json("abi", "cluster", "leave")
    assert status(members[2])["joined"] is False


def test_tokens_that_are_wrong_used_up_or_over(hosts: Hosts) -> None:
    one, two, three = hosts.add(3)
    one.json("abi", "cluster", "init")
    token = token_of(one)
    join(two, token)
    short = token_of(one, valid_s=1)
    spent = time.monotonic() + 1.1
    eventually(lambda: time.monotonic() > spent, "its second is over")
    await_status(one, lambda told: told["nodes"][1]["connected"], "the two are connected")

    def leave_no_trace() -> bool:
        before = status(one)["committed"]
        for text, code in ((token, "wrong_token"), (short, "expired_token"), (short, "expired_token")):
            assert refused(three, "abi", "cluster", "join", ABI_JOIN_TOKEN=text)["code"] == code
        return bool(status(one)["committed"] == before)

    eventually(leave_no_trace, "guesses leave no trace in the log, once what else it takes is there")
    letters = list(token)
    letters[20] = "0" if letters[20] != "0" else "1"
    assert refused(three, "abi", "cluster", "join", ABI_JOIN_TOKEN="".join(letters))["code"] == "usage"
    assert status(three)["joined"] is False
    assert len(status(one)["nodes"]) == 2


def test_with_the_network_disabled_nothing_is_opened(hosts: Hosts) -> None:
    host = Daemon(config="[network]\nenabled = false\n", cpus=1)
    hosts.daemons.append(host)
    assert refused(host, "abi", "cluster", "init")["code"] == "network_disabled"
    assert listening(host.pid) == []
    assert "network is disabled" in host.run("abi", "network", "status").stdout


def test_an_address_that_was_registered_is_dialled_when_the_host_joins(hosts: Hosts) -> None:
    """And it outlives a restart of the daemon."""
    one, two = hosts.add(2)
    one.json("abi", "cluster", "init")
    place = status(one)["nodes"][0]["address"]
    done = two.run("abi", "network", "register", "--host", place)
    assert (done.returncode, done.stdout) == (0, f"{place} is remembered\n")
    assert "`abi cluster join`" in done.stderr
    assert listening(two.pid) == []
    two.kill(signal.SIGKILL)
    two.wait()
    two.start()
    read = join_token.parse(token_of(one))
    nowhere = join_token.to_text(read._replace(addresses=("127.0.0.1:1",)))
    assert len(join(two, nowhere)["nodes"]) == 2
    assert two.json("abi", "network", "register", "--host", place)["joined"] is True
    assert refused(two, "abi", "network", "register", "--host", "a:b:c")["code"] == "usage"
    assert refused(two, "abi", "network", "register", "--host", "no.such.host.invalid")["code"] == "not_found"


def test_a_member_that_moved_says_where_it_is(hosts: Hosts) -> None:
    one, two = hosts.cluster(2)
    two.kill(signal.SIGKILL)
    two.wait()
    two.config_file.write_text(CONFIG + 'address = "localhost"\n')
    two.start()
    node = status(two)["node"]

    def moved(told: Any) -> bool:
        return any(n["id"] == node and n["address"].startswith("localhost:") for n in told["nodes"])

    await_status(one, moved, "its new address is known")
