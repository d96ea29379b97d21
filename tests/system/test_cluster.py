"""Hosts that become one cluster: real daemons on loopback, each with its own port, certificates and Raft on disk."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abi.wire import incarnations, join_token
from abid.cluster import remembered
from tests.system.harness import Daemon, all_pids, eventually

CONFIG = '[network]\nbind = "127.0.0.1"\nport = 0\ndiscovery_enabled = false\n'


class Hosts:
    """Daemons by number, from 0 on; ended with the test."""

    def __init__(self) -> None:
        self.daemons: list[Daemon] = []

    def add(self, count: int = 1, before: str = "") -> list[Daemon]:
        added = [Daemon(config=CONFIG, cpus=1, before=before) for _ in range(count)]
        self.daemons += added
        return added

    def cluster(self, count: int, before: str = "") -> list[Daemon]:
        """So many members, the first of which founded it and leads; all that should vote do."""
        hosts = self.add(count, before)
        assert hosts[0].json("abi", "cluster", "init")["role"] == "leader"
        if count > 1:
            token = token_of(hosts[0], uses=count - 1)
            for host in hosts[1:]:
                join(host, token)
        voters = 1 if count < 3 else 3 if count < 7 else 5
        await_status(hosts[0], lambda told: len(told["voters"]) == voters, f"{voters} of {count} vote")
        return hosts


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        yield made
    finally:
        for daemon in made.daemons:
            daemon.close()


def status(host: Daemon) -> Any:
    return host.json("abi", "network", "status")


def await_status(host: Daemon, holds: Any, what: str) -> Any:
    def found() -> Any:
        told = status(host)
        return told if holds(told) else None

    return eventually(found, what)


def token_of(host: Daemon, uses: int = 1, *words: str) -> str:
    return str(host.json("abi", "cluster", "token", "--uses", str(uses), *words)["token"])


def join(host: Daemon, token: str) -> Any:
    done = host.run("abi", "cluster", "join", "--json", env={"ABI_JOIN_TOKEN": token})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(host: Daemon, *command: str, **variables: str) -> Any:
    """The error of a command that must fail."""
    done = host.run(*command, "--json", env=variables)
    assert done.returncode != 0, done.stdout
    return json.loads(done.stderr)["error"]


def listening(pid: int) -> list[str]:
    """The TCP and UDP sockets of a process, as lines of /proc/net."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = ""
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        found += [f"{table} {line}" for line in lines if line.split()[9] in inodes]
    return found


def test_who_is_in_no_cluster_has_no_port_open_and_loads_nothing_for_it(hosts: Hosts) -> None:
    (host,) = hosts.add()
    told = status(host)
    assert (told["joined"], [node["id"] for node in told["nodes"]]) == (False, [told["node"]])
    assert listening(host.pid) == []
    maps = Path(f"/proc/{host.pid}/maps").read_text()
    assert "_sqlite3." not in maps
    assert "cryptography" not in maps
    assert "`abi cluster init` founds one" in host.run("abi", "network", "status").stdout
    assert refused(host, "abi", "cluster", "token")["code"] == "not_member"
    assert refused(host, "abi", "cluster", "leave")["code"] == "not_member"


def test_three_hosts_become_one_and_lose_their_leader(hosts: Hosts) -> None:
    one, two, three = hosts.cluster(3)
    before = status(two)
    assert len(before["nodes"]) == 3
    assert before["leader"] == status(one)["node"]
    one.kill(signal.SIGKILL)
    one.wait()
    after = await_status(two, lambda told: told["leader"] not in (None, before["leader"]), "another leads")
    assert after["term"] > before["term"]
    claimed = await_status(three, lambda told: told["leader"] == after["leader"], "both say the same")
    assert claimed["term"] == after["term"]
    one.start()
    again = await_status(one, lambda told: told["leader"] == after["leader"], "it comes back and follows")
    assert again["node"] == before["leader"]
    assert again["number"] == 1, "it is who it was"


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
    after = await_status(members[2], lambda told: told["leader"], "a leader again")
    assert [node["id"] for node in after["nodes"]] == [node["id"] for node in before["nodes"]]
    assert after["voters"] == before["voters"]
    assert after["term"] > before["term"]


def test_one_of_three_alone_changes_nothing(hosts: Hosts) -> None:
    config = CONFIG + "request_timeout_ms = 1500\n"
    members = hosts.cluster(2)
    third = Daemon(config=config, cpus=1)
    hosts.daemons.append(third)
    join(third, token_of(members[0]))
    await_status(third, lambda told: len(told["voters"]) == 3, "it votes")
    for daemon in members:
        daemon.kill(signal.SIGKILL)
        daemon.wait()
    error = refused(third, "abi", "cluster", "token")
    assert error["code"] == "unavailable"
    assert "majority" in error["hint"]


def test_up_to_seven_and_down_again(hosts: Hosts) -> None:
    members = hosts.cluster(7)
    for host in members[3:]:
        assert host.json("abi", "cluster", "leave") == {"left": True, "agreed": True, "next": ""}
        assert status(host)["joined"] is False
        assert listening(host.pid) == []
    told = await_status(members[0], lambda told: len(told["voters"]) == 3, "three vote again")
    assert len(told["nodes"]) == 3
    for host in members[:2]:
        host.json("abi", "cluster", "leave")
    told = await_status(members[2], lambda told: told["role"] == "leader", "the last one leads")
    assert (len(told["nodes"]), len(told["voters"])) == (1, 1)
    members[2].json("abi", "cluster", "leave")
    assert status(members[2])["joined"] is False


def test_tokens_that_are_wrong_used_up_or_over(hosts: Hosts) -> None:
    one, two, three = hosts.add(3)
    one.json("abi", "cluster", "init")
    token = token_of(one)
    join(two, token)
    short = token_of(one, 1, "--valid", "1s")
    spent = time.monotonic() + 1.1
    eventually(lambda: time.monotonic() > spent, "its second is over")
    before = await_status(one, lambda told: told["nodes"][1]["connected"], "the two are connected")["committed"]
    for text, code in ((token, "wrong_token"), (short, "expired_token"), (short, "expired_token")):
        assert refused(three, "abi", "cluster", "join", ABI_JOIN_TOKEN=text)["code"] == code
    assert status(one)["committed"] == before, "a guess leaves no trace in the log"
    letters = list(token)
    letters[20] = "0" if letters[20] != "0" else "1"
    assert refused(three, "abi", "cluster", "join", ABI_JOIN_TOKEN="".join(letters))["code"] == "usage"
    assert status(three)["joined"] is False
    assert len(status(one)["nodes"]) == 2


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


def test_a_copy_of_a_member_that_lives_is_refused(hosts: Hosts) -> None:
    one, two = hosts.cluster(2)
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
    one, two, three = hosts.cluster(3)
    (copy,) = hosts.add()
    node = status(two)["node"]
    copied(two, copy)
    told = await_status(copy, lambda told: told["failed"], "it stands aside")
    file = copy.state_dir / "cluster" / "aside.json"
    assert (told["joined"], str(file) in told["failed_hint"], file.exists()) == (True, True, True)
    assert refused(copy, "abi", "cluster", "token")["code"] == "out_of_cluster"
    for host, whose in ((one, f"the identity of node {node}"), (two, "this host's identity")):
        (note, *_) = await_status(host, lambda told: told["notes"], "those who met both say so")["notes"]
        assert (note["code"], whose in note["message"]) == ("copy", True)
    assert "a state directory was copied" in two.run("abi", "network", "status").stdout

    two.kill(signal.SIGTERM)
    two.wait()
    copy.kill(signal.SIGKILL)
    copy.wait()
    copy.start()

    def state(told: Any) -> str:
        return str(next(each["state"] for each in told["nodes"] if each["id"] == node))

    assert state(await_status(one, lambda told: state(told) != "alive", "it is gone")) == "stopped"
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
    on_machine = "import abid.cluster.twins\nabid.cluster.twins.machine = lambda: {!r}\n"
    one, two, _ = hosts.cluster(3, on_machine.format("here"))
    (copy,) = hosts.add(before=on_machine.format("there"))
    two.kill(signal.SIGTERM)
    two.wait()
    copied(two, copy)
    await_status(one, lambda told: told["refused"].get("moved"), "it has to wait")
    await_status(copy, lambda told: [note["code"] for note in told["notes"]] == ["moved"], "it says so")
    two.start()
    await_status(two, lambda told: told["leader"], "it is who it was")
    await_status(copy, lambda told: told["failed"], "the copy stands aside")


def test_who_leaves_by_force_leaves_by_agreement_if_there_can_be_one(hosts: Hosts) -> None:
    """Else two of three that go so would take the majority with them."""
    one, two, three = hosts.cluster(3)
    for host in (three, two):
        done = host.run("abi", "cluster", "leave", "--force")
        assert (done.returncode, done.stdout) == (0, "this host belongs to no cluster, and the others agreed\n")
    assert len(status(one)["nodes"]) == 1
    assert token_of(one)


def test_recovery_founds_a_new_incarnation_that_the_old_refuses(hosts: Hosts) -> None:
    one, two, three = hosts.cluster(3)
    assert refused(one, "abi", "cluster", "recover", "--yes")["code"] == "quorum"
    for daemon in (two, three):
        daemon.kill(signal.SIGKILL)
        daemon.wait()
    await_status(one, lambda told: told["role"] != "leader", "it steps down without its majority")
    unsure = refused(one, "abi", "cluster", "recover")
    assert unsure["code"] == "unsure"
    assert "on one host only" in unsure["message"]
    assert "the 2 other hosts have to leave (--force) and join this one" in unsure["message"]
    incarnation = one.json("abi", "cluster", "recover", "--yes")["incarnation"]
    assert incarnations.generation(incarnation) == 2
    told = await_status(one, lambda told: told["role"] == "leader", "it leads alone")
    assert len(told["nodes"]) == 1
    two.start()
    told = await_status(one, lambda told: told["notes"], "the old one is refused, and one says so")
    assert (told["refused"]["other_incarnation"] > 0, told["notes"][0]["code"]) == (True, "other_incarnation")
    assert "which is older" in told["notes"][0]["message"]
    told = await_status(two, lambda told: told["notes"], "and so does the other side")
    assert "which is newer" in told["notes"][0]["message"]
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


def test_with_the_network_disabled_nothing_is_opened(hosts: Hosts) -> None:
    host = Daemon(config="[network]\nenabled = false\n", cpus=1)
    hosts.daemons.append(host)
    assert refused(host, "abi", "cluster", "init")["code"] == "network_disabled"
    assert listening(host.pid) == []
    assert "network is disabled" in host.run("abi", "network", "status").stdout


def test_nothing_of_a_cluster_outlives_its_daemons(hosts: Hosts) -> None:
    members = hosts.cluster(3)
    pids = {pid for daemon in members for pid in daemon.processes()}
    for daemon in members:
        daemon.close()
    hosts.daemons.clear()
    assert not pids & set(all_pids())


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


SHORT_LIVED = """
import abid.cluster.authority, abid.cluster.renewal
abid.cluster.authority.CERTIFICATE_S = 6
abid.cluster.renewal.LOOK_S = 0.1
abid.cluster.renewal.AGAIN_S = 0.5
"""


def test_certificates_are_renewed_in_time(hosts: Hosts) -> None:
    one, two = hosts.cluster(2, before=SHORT_LIVED)
    ends = {host: status(host)["certificate_ends_ms"] for host in (one, two)}
    for host in (one, two):
        later = ends[host] + 6000
        await_status(host, lambda told, later=later: told["certificate_ends_ms"] > later, "renewed, and again")
    told = await_status(two, lambda told: all(node["connected"] for node in told["nodes"]), "connected still, or again")
    assert told["leader"] == status(one)["node"]
    for host in (one, two):
        assert "is ended: the certificate" not in host.log(), "connections were made anew before that"
        assert "is left" not in host.log()


def test_a_host_that_slept_through_the_end_of_its_certificate_is_renewed_once(hosts: Hosts) -> None:
    """It comes back before all others, and says what it waits for until it meets a member."""
    one, two = hosts.cluster(2, before=SHORT_LIVED)
    for host in (one, two):
        host.kill(signal.SIGKILL)
        host.wait()
    (two.state_dir / "cluster" / "ca.key").unlink(missing_ok=True)
    ended = time.time() + 6.5
    eventually(lambda: time.time() > ended, "its certificate has run out")
    two.start()
    assert "asking for one renewal" in two.log()
    told = await_status(two, lambda told: told["failed"], "it says what it waits for")
    assert (told["joined"], told["removed"], told["leader"]) == (True, "", None)
    assert "certificate" in two.run("abi", "network", "status").stdout
    error = refused(two, "abi", "cluster", "token")
    assert (error["code"], "certificate" in error["message"]) == ("out_of_cluster", True)
    one.start()
    told = await_status(two, lambda told: told.get("leader"), "it is a member as before")
    assert (told["leader"], told["failed"]) == (status(one)["node"], "")
