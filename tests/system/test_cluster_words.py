"""What the commands of a cluster say when something is wrong, and what they do about it: real daemons on loopback."""

from __future__ import annotations

import os
import pty
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abi import exits
from abi.errors import AbiError
from abid.cluster import remembered
from tests.ports import free_tcp_port
from tests.seed.members import QUIET, Making, Member, invented_token
from tests.system.harness import BIN, WAIT_S, eventually


@pytest.fixture(scope="module")
def making() -> Iterator[Making]:
    made = Making()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def pair(making: Making) -> list[Member]:
    return making.cluster(2)


@pytest.fixture(scope="module")
def alone(making: Making) -> Member:
    return making.add()[0]


def error_of(member: Member, op: str, **words: Any) -> AbiError:
    with pytest.raises(AbiError) as caught:
        member.ask(op, **words)
    return caught.value


# Joining.


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("10.77.0.2:99999", "usage", "'99999' is no port"),
        ("10.77.0", "usage", "is no IP address"),
        ("no.such.host.invalid", "not_found", "nothing is known of a host 'no.such.host.invalid'"),
    ],
)
def test_a_place_that_cannot_be_is_told_before_anything_is_dialled(
    alone: Member, place: str, code: str, said: str
) -> None:
    error = error_of(alone, "cluster-join", token=invented_token("127.0.0.1:1"), addresses=[place])
    assert (error.code, said in error.message) == (code, True)


def test_a_place_without_a_port_has_the_default_one(making: Making) -> None:
    port = free_tcp_port()
    (newcomer,) = making.add(options=f"port = {port}\n" + QUIET)
    error = error_of(newcomer, "cluster-join", token=invented_token("127.0.0.1:1"), addresses=["127.0.0.1"])
    assert f"127.0.0.1:{port}: " in error.message


def test_who_answers_nowhere_is_told_once_for_each_place(alone: Member) -> None:
    error = error_of(alone, "cluster-join", token=invented_token("127.0.0.1:1", "127.0.0.1:2"))
    assert error.code == "node_unreachable"
    assert error.message.count("no member answers") == 1
    assert [error.message.count(f"127.0.0.1:{port}") for port in (1, 2)] == [1, 1]
    assert "`abi cluster join HOST:PORT`" in error.hint


def test_a_person_who_has_no_token_after_all(alone: Member) -> None:
    seen = at_a_terminal(alone, "token: ", "\x04", "abi", "cluster", "join")
    assert "abi: no token was given" in seen
    assert "Traceback" not in seen


def test_a_token_among_the_arguments_is_not_taken_for_a_host(alone: Member) -> None:
    token = invented_token("127.0.0.1:1")
    done = alone.run("abi", "cluster", "join", token)
    assert (done.returncode, done.stdout) == (exits.USAGE, "")
    assert "never read from the command line" in done.stderr
    assert "--token-file" in done.stderr
    assert token[6:20] not in done.stderr
    done = alone.run("abi", "cluster", "join", "10.77.0.2:99999")
    assert (done.returncode, "'99999' is no port" in done.stderr) == (exits.USAGE, True)


# Tokens.


def test_a_token_in_a_file_is_for_its_owner_alone(pair: list[Member], tmp_path: Path) -> None:
    file = tmp_path / "token"
    told = pair[1].json("abi", "cluster", "token", "--uses", "2", "--file", str(file))
    assert told == {"id": told["id"], "uses": 2, "ends_ms": told["ends_ms"], "file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("abi-1-")
    again = pair[1].run("abi", "cluster", "token", "--file", str(file))
    assert (again.returncode, "is there already" in again.stderr) == (exits.USAGE, True)
    missing = tmp_path / "missing" / "token"
    assert pair[1].run("abi", "cluster", "token", "--file", str(missing)).returncode == exits.USAGE
    refused = pair[1].run("abi", "cluster", "token", "--uses", "0", "--file", str(tmp_path / "none"))
    assert (refused.returncode, (tmp_path / "none").exists()) == (exits.USAGE, False)
    pair[0].json("abi", "cluster", "token", "--revoke", told["id"])


def test_tokens_are_listed_and_revoked(pair: list[Member], alone: Member, tmp_path: Path) -> None:
    one, two = pair
    token = two.json("abi", "cluster", "token", "--uses", "3")
    listed = {"id": token["id"], "uses": 3, "ends_ms": token["ends_ms"]}
    for member in pair:
        assert member.json("abi", "cluster", "token", "--list") == {"tokens": [listed]}
    lines = one.run("abi", "cluster", "token", "--list").stdout.splitlines()
    assert (lines[0].split(), lines[1].split()[:2]) == (["TOKEN", "USES", "LEFT", "ENDS"], [token["id"], "3"])
    assert one.json("abi", "cluster", "token", "--revoke", token["id"]) == {"revoked": token["id"]}
    assert two.json("abi", "cluster", "token", "--list") == {"tokens": []}
    error = error_of(alone, "cluster-join", token=token["token"])
    assert (error.code, "abi cluster token" in error.hint) == ("wrong_token", True)
    gone = one.run("abi", "cluster", "token", "--revoke", token["id"])
    assert (gone.returncode, f"no token '{token['id']}'" in gone.stderr) == (exits.NOT_FOUND, True)


def test_a_token_that_nobody_could_read_is_none(pair: list[Member]) -> None:
    command = ["sh", "-c", 'exec "$0" cluster token >&-', str(BIN / "abi")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=pair[0].environment, timeout=WAIT_S)
    assert (done.returncode, "standard output is closed" in done.stderr) == (exits.FAILURE, True)
    for words in ([], ["--json"]):
        command = [str(BIN / "abi"), "cluster", "token", *words]
        with open("/dev/full", "w") as full:
            assert subprocess.run(command, stdout=full, env=pair[0].environment, timeout=WAIT_S).returncode == 1
    assert pair[0].json("abi", "cluster", "token", "--list") == {"tokens": []}


# Sending a host away.


def test_a_word_that_names_nobody_removes_nobody(pair: list[Member]) -> None:
    one, two = pair
    for word, code in (("", exits.USAGE), (two.node[:1], exits.USAGE), ("no-such-host", exits.NOT_FOUND)):
        done = one.run("abi", "network", "remove", "--yes", word)
        assert (done.returncode, done.stdout) == (code, "")
    assert len(one.status()["nodes"]) == 2


def test_nobody_is_removed_by_somebody_who_is_not_sure(pair: list[Member]) -> None:
    one, two = pair
    done = one.run("abi", "network", "remove", two.node)
    assert done.returncode == exits.USAGE
    assert f"send node {two.node}" in done.stderr
    assert "--yes" in done.stderr
    screen = at_a_terminal(one, "[y/N]", "n\n", "abi", "network", "remove", two.node)
    assert "go on? [y/N]" in screen
    assert "nothing was done" in screen
    assert len(one.status()["nodes"]) == 2


# Hosts that a person names.


def test_what_came_of_the_first_dial_is_told(pair: list[Member]) -> None:
    one, two = pair
    place = two.sees(two)["address"]
    port = free_tcp_port()
    said = one.run("abi", "network", "register", "--host", place).stdout
    assert said == f"{place} is remembered, and answers as node {two.node}\n"
    said = one.run("abi", "network", "register", "--host", f"127.0.0.1:{port}").stdout
    assert said.startswith(f"127.0.0.1:{port} is remembered: nobody answers there now (")
    assert said.endswith("and it is not tried again while network.discovery_enabled is false\n")
    own = one.run("abi", "network", "register", "--host", one.sees(one)["address"])
    assert (own.returncode, "is this host itself" in own.stderr) == (exits.USAGE, True)
    listed = [{"address": place, "node": two.node}, {"address": f"127.0.0.1:{port}", "node": None}]
    assert one.json("abi", "network", "register", "--list") == {"registered": listed}
    one.restart()
    assert one.json("abi", "network", "register", "--list") == {"registered": listed}
    one.json("abi", "network", "unregister", "--host", f"127.0.0.1:{port}")
    one.run("abi", "network", "unregister", "--host", place)
    assert [peer for peer in remembered.load(one.state_dir / "cluster") if peer.is_registered] == []
    again = one.run("abi", "network", "unregister", "--host", place)
    assert (again.returncode, "is not registered" in again.stderr) == (exits.NOT_FOUND, True)
    one.until(lambda told: told["leader"] and one.sees(two)["connected"], "both are up again")


def test_a_member_of_another_cluster_is_told_to_be_one(pair: list[Member], making: Making) -> None:
    (other,) = making.cluster(1)
    place = other.sees(other)["address"]
    told = pair[0].ask("network-register", host=place)["dialled"]
    assert [(each["node"], each["code"]) for each in told] == [(None, "wrong_ca")]
    pair[0].ask("network-unregister", host=place)


def test_a_host_in_no_cluster_lists_and_takes_back_what_it_keeps(alone: Member) -> None:
    place = f"127.0.0.1:{free_tcp_port()}"
    alone.ask("network-register", host=place)
    assert alone.ask("network-registered") == {"registered": [{"address": place, "node": None}]}
    assert alone.ask("network-unregister", host=place) == {"unregistered": [place]}
    assert alone.ask("network-registered") == {"registered": []}


# What is told in one way.


def test_a_node_has_the_same_keys_wherever_it_is_told(pair: list[Member], alone: Member) -> None:
    keys = [list(node) for member in (*pair, alone) for node in member.status()["nodes"]]
    assert all(each == keys[0] for each in keys)
    (itself,) = alone.status()["nodes"]
    assert (itself["number"], itself["joined_ms"], itself["breaker"]) == (None, None, None)


def test_not_joined_leaves_in_one_way(alone: Member) -> None:
    for words in ((), ("--force",)):
        done = alone.run("abi", "cluster", "leave", *words)
        assert (done.returncode, "belongs to no cluster" in done.stderr) == (exits.FAILURE, True)


def test_list_and_status_say_in_the_same_place_that_it_is_in_no_cluster(alone: Member) -> None:
    for command in ("list", "status"):
        done = alone.run("abi", "network", command)
        assert ("`abi cluster init` founds one" in done.stdout, done.stderr) == (True, "")


# Waiting.


def at_a_terminal(member: Member, after: str, typed: str, *command: str) -> str:
    """All that a person sees who types something when this is there; the command has a terminal of its own."""
    ours, its = pty.openpty()
    with open(ours, "r+b", buffering=0) as screen:
        words = ["setsid", "--ctty", str(BIN / command[0]), *command[1:]]
        process = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, env=member.environment)
        os.close(its)
        seen, is_typed = b"", False
        try:
            while piece := screen.read(4096):
                seen += piece
                if after.encode() in seen and not is_typed:
                    is_typed = True
                    screen.write(typed.encode())
        except OSError:  # the other end of a terminal is closed
            pass
        process.wait(WAIT_S)
    return seen.decode().replace("\r\n", "\n")


def test_who_waits_for_a_leader_is_told_so(making: Making) -> None:
    leader, one = making.cluster(2)
    leader.kill(signal.SIGKILL)
    leader.wait()
    one.until(lambda told: not told["leader"], "nobody leads")
    waits = "waiting for a leader: 1 of the cluster's 1 voters must be up, and this host knows of 0"
    assert waits in at_a_terminal(one, waits, "\x03", "abi", "cluster", "token")
    one.reload("port = 0\nrequest_timeout_ms = 1500\n" + QUIET)
    assert "`abi cluster leave --force`" in one.run("abi", "cluster", "leave").stderr
    done = one.run("abi", "cluster", "token", "--json")
    assert (done.returncode, done.stdout) == (exits.UNREACHABLE, "")
    assert "waiting" not in done.stderr
    assert "majority" in done.stderr
    eventually(lambda: one.json("abi", "cluster", "leave", "--force")["left"], "it goes all the same")
