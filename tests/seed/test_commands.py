"""The seed's row "CLI": the commands talk to the running daemon, say what is wrong on stderr, and all have --json; and
what its row "Configuration" says of `abi config show`. (`register`, which dials: test_service_discovery.py.)"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from abi import exits
from tests.seed.members import QUIET, Making, Member


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Member]]:
    making = Making()
    try:
        yield making.cluster(2)
    finally:
        making.close()


def test_list_and_status_show_what_the_daemon_knows(pair: list[Member]) -> None:
    one, two = pair
    for asked in pair:
        lines = asked.run("abi", "network", "list").stdout.splitlines()
        assert lines[0].split() == ["NODE", "MEMBER", "NAME", "STATE", "ROLE", "CORES", "GPU", "BREAKER", "ADDRESS"]
        assert {line.split()[0] for line in lines[1:]} == {one.node, two.node}
    said = two.run("abi", "network", "status").stdout
    told = two.status()
    assert f"{one.node}, term {told['term']}" in said
    assert f"{two.node}, follower, port {told['port']}" in said


def test_every_one_has_json(pair: list[Member], making: Making) -> None:
    one, two = pair
    (three,) = making.add()
    token = one.json("abi", "cluster", "token")["token"]
    done = three.run("abi", "cluster", "join", "--json", env={"ABI_JOIN_TOKEN": token})
    assert done.returncode == 0, done.stderr
    assert three.node in [node["id"] for node in json.loads(done.stdout)["nodes"]]
    assert [node["id"] for node in one.json("abi", "network", "list")["nodes"]] == [one.node, two.node, three.node]
    assert one.json("abi", "network", "status")["joined"] is True
    place = two.sees(two)["address"]
    met = {"address": place, "node": two.node, "code": None, "message": "", "hint": ""}
    registered = one.json("abi", "network", "register", "--host", place)
    assert registered == {"registered": [place], "joined": True, "dialled": [met], "is_tried_again": False}
    listed = one.json("abi", "network", "register", "--list")
    assert listed == {"registered": [{"address": place, "node": two.node}]}
    assert one.json("abi", "network", "unregister", "--host", place) == {"unregistered": [place]}
    assert one.json("abi", "network", "remove", "--yes", three.node) == {"removed": three.node}
    assert three.json("abi", "cluster", "leave", "--force")["left"] is True
    assert three.json("abi", "cluster", "init")["role"] == "leader"


BAD = [
    (["network", "remove", "no-such-node"], exits.NOT_FOUND, "no-such-node"),
    (["network", "register", "--host", "no.such.host.invalid"], exits.NOT_FOUND, "no.such.host.invalid"),
    (["network", "register", "--host", "a:b:c"], exits.USAGE, "a:b:c"),
    (["network", "register"], exits.USAGE, "--host"),
    (["network", "dance"], exits.USAGE, "dance"),
    (["cluster", "token", "--uses", "0"], exits.USAGE, "uses"),
]


@pytest.mark.parametrize(("command", "code", "said"), BAD, ids=[" ".join(command) for command, *_ in BAD])
def test_an_unknown_node_or_a_bad_value_is_said_on_stderr(
    pair: list[Member], command: list[str], code: int, said: str
) -> None:
    done = pair[0].run("abi", *command)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_with_json_errors_are_json_too(pair: list[Member]) -> None:
    done = pair[0].run("abi", "network", "remove", "no-such-node", "--json")
    assert (done.returncode, done.stdout) == (exits.NOT_FOUND, "")
    assert json.loads(done.stderr)["error"]["code"] == "not_found"


def test_config_show_prints_each_value_and_where_it_came_from() -> None:
    member = Member(f"port = 0\n{QUIET}", ABI_NETWORK_MAX_RETRIES="7")
    try:
        rows = [line.split(maxsplit=2) for line in member.run("abi", "config", "show").stdout.splitlines()]
        shown = {key: (value, origin) for key, value, origin in rows if key.startswith("network.")}
        line = len(member.config_file.read_text().splitlines())
        assert shown["network.port"] == ("0", f"{member.config_file}:{line - 1}")
        assert shown["network.discovery_enabled"] == ("false", f"{member.config_file}:{line}")
        assert shown["network.max_retries"] == ("7", "environment ABI_NETWORK_MAX_RETRIES")
        assert shown["network.request_timeout_ms"] == ("30000", "default")
        assert shown["network.connection_timeout_ms"] == ("10000", "default")
        assert shown["network.broadcast_interval_ms"] == ("5000", "default")
    finally:
        member.close()
