"""A member whose addresses come and go while its daemon runs: real daemons on hosts of their own."""

from __future__ import annotations

import http.client
import shutil
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from abi.errors import AbiError
from tests.hosts import kernel
from tests.hosts.daemon import HostDaemon
from tests.hosts.hosts import Host, Hosts
from tests.system.clusters import status
from tests.system.harness import eventually

PORT = 8081
INTERVAL_MS = 250


@pytest.fixture
def pair() -> Iterator[Hosts]:
    missing = kernel.why_not()
    if missing:
        pytest.skip(f"no hosts for tests: {missing}")
    with Hosts(2) as hosts:
        yield hosts


def options(**more: Any) -> str:
    lines = {"broadcast_interval_ms": INTERVAL_MS, **more}
    return "[network]\n" + "".join(f"{name} = {str(value).lower()}\n" for name, value in lines.items())


def refused(daemon: HostDaemon, op: str, **words: Any) -> AbiError:
    with pytest.raises(AbiError) as caught:
        daemon.ask(op, **words)
    return caught.value


def ip(host: Host, *lines: str) -> None:
    kernel.tell("ip", "-n", host.namespace, "-b", "-", lines=lines)


def listening(host: Host) -> list[str]:
    """The addresses at which something listens on our port."""
    found = []
    for line in host.run(["ss", "-lntH"]).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if port == str(PORT):
            found.append(address)
    return sorted(found)


def await_listening(host: Host, *addresses: str) -> None:
    eventually(lambda: listening(host) == sorted(addresses), f"{host} listens on {addresses} only")


def address_of(daemon: HostDaemon, node: str) -> Sequence[str]:
    """What a daemon knows of a member."""
    return next((tuple(one["addresses"]) for one in status(daemon)["nodes"] if one["id"] == node), ())


def are_connected(daemons: Sequence[HostDaemon]) -> bool:
    told = [status(daemon) for daemon in daemons]
    return all(len(one["nodes"]) == 2 and all(node["connected"] for node in one["nodes"]) for one in told)


def is_alone(daemon: HostDaemon) -> str:
    """What it says of its addresses; "" if it has some."""
    return " ".join(note["message"] for note in status(daemon)["notes"] if note["code"] == "listening")


@pytest.mark.skipif(not shutil.which("ss"), reason="ss (iproute2) is not installed")
def test_the_door_follows_the_addresses_of_the_host(pair: Hosts) -> None:
    """Founded before its switch is on, then given another address, and one more interface, all without discovery; and
    with it, started before its switch is on."""
    one, _ = pair
    ip(one, "addr flush dev eth0", "link set eth0 down")
    with ThreadPoolExecutor() as pool:
        config = options(discovery_enabled=False)
        first, second = daemons = list(pool.map(lambda host: HostDaemon(host, cpus=1, config=config), pair))
    try:
        first.ask("cluster-init")
        told = status(first)
        assert "listens on 127.0.0.1 and ::1 only: no other address is up" in is_alone(first)
        assert told["nodes"][0]["addresses"] == []
        said = refused(first, "cluster-token")
        assert ("no other address is up" in said.message, "network.bind" in said.hint) == (True, True)

        ip(one, "link set eth0 up", f"addr add {one.address}/24 brd + dev eth0")
        await_listening(one, one.address)
        assert is_alone(first) == ""
        second.ask("cluster-join", token=first.ask("cluster-token")["token"])
        node = str(told["node"])
        eventually(lambda: address_of(second, node) == (f"{one.address}:{PORT}",), "the other knows where it is")

        ip(one, "addr flush dev eth0", "addr add 10.77.0.77/24 brd + dev eth0")
        await_listening(one, "10.77.0.77")
        eventually(lambda: address_of(second, node) == (f"10.77.0.77:{PORT}",), "the other knows where it is now")
        eventually(lambda: are_connected(daemons), "they are connected")

        ip(one, "link add d0 type veth peer d1", "addr add 10.99.0.1/24 dev d0", "link set d0 up", "link set d1 up")
        await_listening(one, "10.77.0.77", "10.99.0.1")
        eventually(lambda: f"10.99.0.1:{PORT}" in address_of(second, node), "the other knows of both")
        ip(one, "link del d0")
        await_listening(one, "10.77.0.77")
        eventually(lambda: address_of(second, node) == (f"10.77.0.77:{PORT}",), "the other knows that it is gone")

        first.kill()
        first.wait()
        ip(one, "addr flush dev eth0", "link set eth0 down")
        first.config_file.write_text(options())
        first.start()
        assert "no other address is up" in is_alone(first)
        ip(one, "link set eth0 up", f"addr add {one.address}/24 brd + dev eth0")
        await_listening(one, one.address)
        eventually(lambda: address_of(second, node) == (f"{one.address}:{PORT}",), "the other knows that it is back")
        eventually(lambda: are_connected(daemons), "they are connected")
    finally:
        for daemon in daemons:
            daemon.close()


def page(daemon: HostDaemon, path: str) -> tuple[int, str]:
    """Of what is served to those who watch."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.runtime_dir / "metrics.sock"))
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_member_whose_address_is_not_up_is_out_of_its_cluster_until_it_is(pair: Hosts) -> None:
    """It says so to all who ask, and comes back by itself."""
    one, _ = pair
    daemon = HostDaemon(one, cpus=1, config=options(discovery_enabled=False) + f'bind = "{one.address}"\n')
    try:
        daemon.ask("cluster-init")
        daemon.kill()
        daemon.wait()
        ip(one, "addr flush dev eth0")
        daemon.start()
        told = status(daemon)
        assert (told["joined"], told["leader"], one.address in told["failed"]) == (True, None, True)
        shown = daemon.run("abi", "network", "status").stdout
        assert "this host is a member of its cluster, but out of it: " in shown
        assert "tried again by itself" in shown
        assert refused(daemon, "cluster-token").code == "out_of_cluster"
        assert page(daemon, "/readyz")[0] == 503
        assert "\nabi_raft_leader_known 0\n" in page(daemon, "/metrics")[1]
        ip(one, f"addr add {one.address}/24 brd + dev eth0")
        eventually(lambda: status(daemon)["leader"] == told["node"], "it takes part again")
        assert page(daemon, "/readyz")[0] == 200
    finally:
        daemon.close()
