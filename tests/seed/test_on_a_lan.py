"""The seed's rows "Node registry" and "Discovery starts by broadcast": real daemons on hosts of their own.

Both hosts get other addresses while their daemons are down, so that nothing that either remembers leads to the other:
who finds it then, has discovered it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from abi.control import Object
from abi.network import NodeRegistry
from tests.hosts import kernel
from tests.hosts.daemon import HostDaemon
from tests.hosts.hosts import Hosts
from tests.system.harness import eventually

INTERVAL_MS = 1000
OPTIONS = f"[network]\nbroadcast_interval_ms = {INTERVAL_MS}\n"
FIRST_FREE = 64
SUBNET = f"10.77.0.{FIRST_FREE}/27"
"""Of the addresses that no host has from the start, as many as are needed here."""
PORT = 8081


class Lan:
    """Two hosts of one cluster; the first votes, the second learns."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        with ThreadPoolExecutor() as pool:
            self.daemons = list(pool.map(lambda host: HostDaemon(host, cpus=1, config=OPTIONS), hosts))
        self.addresses = [host.address for host in hosts]
        self._octet = FIRST_FREE
        first, second = self.daemons
        first.ask("cluster-init")
        second.ask("cluster-join", token=first.ask("cluster-token")["token"])
        self.nodes = [str(self.status(daemon)["node"]) for daemon in self.daemons]

    def status(self, daemon: HostDaemon) -> Object:
        return daemon.ask("network-status")

    def up(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is not None:
                daemon.start()

    def down(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.kill()
                daemon.wait()

    def move(self) -> list[str]:
        """Both down, and then at other addresses, IPv4 alone. Those, one for each."""
        self.down()
        self.addresses = []
        for host in self.hosts:
            self._octet += 1
            address = f"10.77.0.{self._octet}"
            kernel.tell("ip", "-n", host.namespace, "addr", "flush", "dev", "eth0")
            kernel.tell("ip", "-n", host.namespace, "addr", "add", f"{address}/24", "brd", "+", "dev", "eth0")
            self.addresses.append(address)
        return self.addresses

    def start(self, number: int, options: str = "") -> None:
        self.daemons[number].config_file.write_text(OPTIONS + options)
        self.daemons[number].start()

    def await_connected(self) -> None:
        for daemon in self.daemons:
            eventually(lambda daemon=daemon: self.is_connected(daemon), "both are connected")

    def is_connected(self, daemon: HostDaemon) -> bool:
        nodes = self.status(daemon)["nodes"]
        return len(nodes) == 2 and all(node["connected"] for node in nodes)


@contextmanager
def no_broadcasts(hosts: Hosts) -> Iterator[None]:
    """What is sent to everybody arrives nowhere, as in most clouds."""
    lines = [
        "add table inet cloud",
        "add chain inet cloud arrives { type filter hook input priority 0; policy accept; }",
        "add rule inet cloud arrives pkttype { broadcast, multicast } meta l4proto udp drop",
    ]
    for host in hosts:
        kernel.tell("ip", "netns", "exec", host.namespace, "nft", "-f", "-", lines=lines)
    yield
    for host in hosts:
        kernel.tell("ip", "netns", "exec", host.namespace, "nft", "delete", "table", "inet", "cloud")


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    missing = kernel.why_not()
    if missing:
        pytest.skip(f"no hosts for tests: {missing}")
    with Hosts(2) as hosts:
        lan = Lan(hosts)
        yield lan
        lan.down()
        for daemon in lan.daemons:
            daemon.close()


def test_two_daemons_of_one_cluster_list_each_other_with_no_address_configured(
    lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    lan.up()
    lan.await_connected()
    for daemon in lan.daemons:
        monkeypatch.setenv("ABI_SOCKET", str(daemon.runtime_dir / "abid.sock"))
        registry = NodeRegistry(port=PORT, discovery_enabled=True, broadcast_interval_ms=INTERVAL_MS)
        registry.start_discovery()

        def listed(registry: NodeRegistry = registry) -> bool:
            return {(node.id, node.address) for node in registry.get_active_nodes()} == {
                (node, f"{address}:{PORT}") for node, address in zip(lan.nodes, lan.addresses, strict=True)
            }

        eventually(listed, "both are listed, each where it is now")


@pytest.mark.parametrize("late", [0, 1])
def test_a_late_one_shows_up_whichever_starts_first(lan: Lan, late: int) -> None:
    """That two intervals are enough for it, ``core/test_discovery.py`` holds, on a virtual clock."""
    lan.move()
    lan.start(1 - late)
    time.sleep(INTERVAL_MS / 2000)  # so that it starts between two beacons of the other
    lan.start(late)
    lan.await_connected()


needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="nft (nftables) is not installed")


@needs_nft
@pytest.mark.parametrize("way", ["seeds", "subnets"])
def test_where_broadcast_is_blocked_seeds_and_subnets_do(lan: Lan, way: str) -> None:
    addresses = lan.move()
    options = {"seeds": f'seeds = ["{addresses[0]}"]\n', "subnets": f'subnets = ["{SUBNET}"]\n'}
    with no_broadcasts(lan.hosts):
        lan.start(0)
        lan.start(1, options[way])
        lan.await_connected()
