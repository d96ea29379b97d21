"""Discovery on hosts of their own: who finds whom over which network, and what leaves a host."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.cluster_discovery.members import WAIT_S, Running, running
from tests.hosts import kernel
from tests.hosts.hosts import Host, Hosts

INTERVAL_MS = 1000
INTERVAL_S = INTERVAL_MS / 1000
SNIFF = str(Path(__file__).with_name("sniff.py"))
Make = Callable[..., Running]


@pytest.fixture(scope="session", autouse=True)
def needs_hosts() -> None:
    missing = kernel.why_not()
    if missing:
        pytest.skip(f"no hosts for tests: {missing}")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as made:
        yield made


@pytest.fixture
def make(hosts: Hosts) -> Iterator[Make]:
    """A member on a host, numbered as it is, from 1."""
    with running() as started:

        def member(host: Host, *, options: dict[str, object] | None = None, **words: object) -> Running:
            told = {"interval_ms": INTERVAL_MS} | (options or {})
            return started(host.open, host.folder / "state", host.number + 1, options=told, **words)

        yield member


def without_broadcast(host: Host) -> None:
    """What is sent to everybody does not arrive here, by broadcast or by multicast, as in most clouds."""
    lines = [
        "add table inet cloud",
        "add chain inet cloud arrives { type filter hook input priority 0; policy accept; }",
        "add rule inet cloud arrives pkttype { broadcast, multicast } meta l4proto udp drop",
    ]
    kernel.tell("ip", "netns", "exec", host.namespace, "nft", "-f", "-", lines=lines)


needs_nft = pytest.mark.skipif(not kernel.shutil.which("nft"), reason="nft (nftables) is not installed")


@pytest.mark.parametrize("late", [0, 1])
def test_whichever_starts_first_they_meet(hosts: Hosts, make: Make, late: int) -> None:
    """Within how many intervals, the rules' own test says."""
    first = make(hosts[1 - late])
    time.sleep(INTERVAL_S / 2)  # the late one is to start between two beacons of the other
    second = make(hosts[late])
    met = [member.next("connected") for member in (first, second)]
    assert [one["node"] for one in met] == [second.node, first.node]


def test_three_find_each_other_and_an_idle_one_dials_nobody(hosts: Hosts, make: Make) -> None:
    members = [make(host) for host in hosts]
    for member in members:
        others = {one.node for one in members} - {member.node}
        while others:  # both of two may have dialled
            others.discard(member.next("connected")["node"])
    dialled = [len(member.dials) for member in members]
    time.sleep(3 * INTERVAL_S)
    assert [len(member.dials) for member in members] == dialled


@needs_nft
def test_where_nothing_is_broadcast_a_subnet_finds_who_is_there(hosts: Hosts, make: Make) -> None:
    for host in hosts:
        without_broadcast(host)
    quiet = make(hosts[1])
    alone = make(hosts[0])
    assert not _is_connected(alone, 3 * INTERVAL_S), "so would it be without the subnet"
    alone.stop()
    asking = make(hosts[2], options={"subnets": ["10.77.0.0/28"]})
    assert asking.next("connected")["node"] == quiet.node


@needs_nft
def test_where_nothing_is_broadcast_a_seed_finds_who_is_there(hosts: Hosts, make: Make) -> None:
    for host in hosts:
        without_broadcast(host)
    there = make(hosts[1])
    one = make(hosts[0], options={"seeds": [f"{hosts[1].address}:9000"]})
    assert one.next("connected")["node"] == there.node


@pytest.mark.skipif(bool(kernel.why_no_loss()), reason=kernel.why_no_loss() or "there is loss")
def test_a_beacon_that_arrives_one_way_only_is_enough(hosts: Hosts, make: Make) -> None:
    """IPv4 from 0 to 1 is lost, so neither can connect there; over IPv6 they meet."""
    hosts.block(hosts[0], hosts[1])
    one, other = make(hosts[0]), make(hosts[1])
    met = one.next("connected")
    assert met["node"] == other.node
    addresses = {address for _, address in one.dials + other.dials}
    assert met["address"].startswith("[fd77::") or other.next("connected")["address"].startswith("[fd77::"), addresses


def test_after_a_pulled_cable_they_meet(hosts: Hosts, make: Make) -> None:
    """The one that was cut off is killed meanwhile, so that nobody's connection outlives it."""
    one, other = make(hosts[0]), make(hosts[1])
    one.next("connected")
    hosts[1].link_down()
    other.process.kill()
    other.process.wait(WAIT_S)
    again = make(hosts[1], boot=2)
    assert not _is_connected(again, 3 * INTERVAL_S)
    hosts[1].link_up()
    assert again.next("connected")["node"] == one.node
    assert one.next("connected")["node"] == again.node


def test_an_address_that_leads_nowhere_does_not_hide_one_that_does(hosts: Hosts, make: Make) -> None:
    """Both have a docker0, with the same address, and one more that only looks like the other's network."""
    for host in hosts:
        lines = [
            "link add docker0 type bridge",
            "link add veth9 type veth peer name guest9",
            "link set guest9 up",
            "link set veth9 up master docker0",
            "link set docker0 up",
            "addr add 172.17.0.1/16 brd + dev docker0",
            "link add aaa0 type veth peer name aaa1",
            "link set aaa1 up",
            "link set aaa0 up",
            f"addr add 10.99.{host.number}.1/24 brd + dev aaa0",
        ]
        kernel.tell("ip", "-n", host.namespace, "-b", "-", lines=lines)
    one, other = make(hosts[0]), make(hosts[1])
    assert one.next("connected")["node"] == other.node
    addresses = [address for _, address in one.dials]  # perhaps none: the other may have been faster
    assert "172.17.0.1:9000" not in itertools.takewhile(lambda address: address != "10.77.0.2:9000", addresses)


def test_over_ipv6_alone_they_meet(hosts: Hosts, make: Make) -> None:
    for host in hosts:
        kernel.tell("ip", "-n", host.namespace, "addr", "del", f"{host.address}/24", "dev", "eth0")
    one, other = make(hosts[0]), make(hosts[1])
    assert one.next("connected")["node"] == other.node
    assert {address for _, address in one.dials + other.dials} <= {"[fd77::1]:9000", "[fd77::2]:9000"}


def left(host: Host, then: Callable[[], None]) -> set[tuple[str, int]]:
    """What left this host meanwhile."""
    sniffer = host.open([sys.executable, SNIFF], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sniffer.stdout.readline() == "ready\n"
    then()
    said, _ = sniffer.communicate("", timeout=WAIT_S)
    return {(protocol, port) for protocol, port in json.loads(said)}


@pytest.mark.parametrize("enabled", [True, False])
def test_switched_off_not_one_packet_leaves(hosts: Hosts, make: Make, enabled: bool) -> None:
    """With everything configured that could make one. Switched on, the same shows what would have been seen."""
    options = {
        "enabled": enabled,
        "seeds": [f"{hosts[1].address}:9000", "name.invalid"],
        "subnets": ["10.77.0.0/28"],
        "exec_hook": "/bin/echo 10.77.0.3",
    }

    def lives(intervals: int) -> None:
        member = make(hosts[0], options=options)
        time.sleep(intervals * INTERVAL_S)
        member.stop()

    sent = {("udp", 8081), ("tcp", 9000)}
    for intervals in (3, 30):  # on a busy machine the first may be too short
        seen = left(hosts[0], lambda intervals=intervals: lives(intervals))
        if not enabled or sent <= seen:
            break
    assert (("udp", 8081) in seen, ("tcp", 9000) in seen) == (enabled, enabled)
    assert enabled or seen == set()


def _is_connected(member: Running, within_s: float) -> bool:
    try:
        member.next("connected", within_s)
    except queue.Empty:
        return False
    return True


FOLLOW = """
import subprocess, sys, time
from abid.cluster import interfaces

asked, found = [], interfaces.found
interfaces.found = lambda only: asked.append(only) or found(only)
following, end = interfaces.Following(), time.monotonic() + float(sys.argv[1])

def asks(times):
    before = len(asked)
    told = [following.found() for _ in range(times)]
    return len(asked) - before, told == [found("")] * times

assert asks(1)[0] == 1
while asks(3) != (0, True):  # for seconds after it was made, the kernel has news of a host by itself
    assert time.monotonic() < end, "it never rests"
    time.sleep(0.01)
for change in (["addr", "add", "10.77.0.99/24", "dev", "eth0"], ["link", "set", "eth0", "down"]):
    subprocess.run(["ip", *change], check=True)
    assert asks(1)[0] == 1, change
    while asks(3) != (0, True):
        assert time.monotonic() < end, change
        time.sleep(0.01)
following.close()
assert asks(2)[0] == 2, "without news it is asked each time"
print("well")
"""


def test_the_kernel_says_when_interfaces_are_others(hosts: Hosts) -> None:
    done = hosts[0].run([sys.executable, "-c", FOLLOW, str(WAIT_S)], timeout=2 * WAIT_S)
    assert done.stdout == "well\n", done.stderr
