"""The seed's row "Configuration": each of its six options changes what happens, seen from outside of real daemons."""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from abi.errors import AbiError, NodeUnreachable, Timeout
from tests.hosts import kernel
from tests.hosts.daemon import HostDaemon
from tests.hosts.hosts import Hosts
from tests.ports import free_tcp_port
from tests.seed.members import QUIET, Making, Member, elapsed, invented_token, listening
from tests.system.harness import WAIT_S, eventually

OTHERS_S = 8.0
"""For all that such a call does beside waiting, on a machine that has other things to do. With it any time that is
asked for here is over sooner than the default one, 10 s at least."""
ROUNDED_MS = 3
"""By which a timer may come early: it goes by whole milliseconds."""
BEACONS = str(Path(__file__).with_name("beacons.py"))


def test_port(making: Making) -> None:
    """Where peers connect, and nowhere else."""
    port = free_tcp_port()
    (member,) = making.add(options=f"port = {port}\n{QUIET}")
    assert listening(member.pid) == set()
    member.ask("cluster-init")
    assert listening(member.pid) == {("tcp", port)}
    assert member.status()["port"] == port
    socket.create_connection(("127.0.0.1", port), WAIT_S).close()


# --- beacons ----------------------------------------------------------------------------------------------------------

OFTEN_MS, SELDOM_MS = 100, 60_000
MANY = 12


class Watched:
    """What left hosts since before they founded clusters; on each host one configuration."""

    def __init__(self, names: Iterable[str], hosts: Hosts, folder: Path) -> None:
        self._folder = folder
        self._began = time.monotonic()
        for name, host in zip(names, hosts, strict=True):
            with open(folder / name, "w") as out:
                host.open([sys.executable, BEACONS], stdout=out)
        for name in names:
            eventually(lambda name=name: self.left(name)["ready"], f"the host with {name} is watched")

    def left(self, name: str) -> Counter[str]:
        """Packets, by protocol."""
        return Counter((self._folder / name).read_text().split())

    def await_beacons(self, interval_ms: int, count: int) -> int:
        """How many there are, when they are so many."""
        name = f"every {interval_ms} ms"
        eventually(lambda: self.left(name)["broadcast"] >= count, f"{count} beacons, {name}")
        return self.left(name)["broadcast"]

    def most(self, interval_ms: int) -> float:
        """More there cannot be: each interval is drawn from 90 to 110 % of it."""
        return (time.monotonic() - self._began) * 1000 / (0.9 * interval_ms) + 1


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    missing = kernel.why_not()
    if missing:
        pytest.skip(f"no hosts for tests: {missing}")
    everything = 'seeds = ["10.77.0.200:9000"]\nsubnets = ["10.77.0.128/29"]\nexec_hook = "/bin/echo 10.77.0.201"\n'
    configurations = {
        "off": f"discovery_enabled = false\nbroadcast_interval_ms = {OFTEN_MS}\n{everything}",
        **{f"every {ms} ms": f"broadcast_interval_ms = {ms}\n" for ms in (OFTEN_MS, SELDOM_MS)},
    }
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts(len(configurations)))
        with ThreadPoolExecutor() as pool:
            texts = [f"[network]\n{options}" for options in configurations.values()]
            daemons = list(pool.map(lambda host, text: HostDaemon(host, cpus=1, config=text), hosts, texts))
        for daemon in daemons:
            stack.callback(daemon.close)
        watched = Watched(configurations, hosts, tmp_path_factory.mktemp("watched"))
        for daemon in daemons:
            daemon.ask("cluster-init")
        yield watched


def test_discovery_enabled(watched: Watched) -> None:
    """Off, not one packet leaves, whatever else is configured; on, beacons do. (Who finds whom: test_on_a_lan.py.)"""
    watched.await_beacons(OFTEN_MS, MANY)
    assert watched.left("off") == Counter(ready=1)


def test_broadcast_interval_ms(watched: Watched) -> None:
    """A shorter one makes more."""
    often, seldom = watched.await_beacons(OFTEN_MS, MANY), watched.await_beacons(SELDOM_MS, 1)
    assert seldom <= watched.most(SELDOM_MS) < often <= watched.most(OFTEN_MS), (often, seldom)


# --- times ------------------------------------------------------------------------------------------------------------


def assert_lasts(timeout_ms: int, call: Callable[[], object]) -> None:
    assert timeout_ms - ROUNDED_MS <= 1000 * elapsed(call) <= timeout_ms + 1000 * OTHERS_S


def test_connection_timeout_ms(making: Making) -> None:
    """Of a dial to somebody who takes the connection and never says a word; it ends as `NodeUnreachable`."""
    (member,) = making.add()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        token = invented_token(f"127.0.0.1:{mute.getsockname()[1]}")

        def join() -> None:
            with pytest.raises(NodeUnreachable, match=f"no connection within {timeout_ms} ms"):
                member.ask("cluster-join", token=token)

        for timeout_ms in (100, 600):
            member.reload(f"port = 0\n{QUIET}connection_timeout_ms = {timeout_ms}\n")
            assert_lasts(timeout_ms, join)


HANGS_UP = """
from abid.cluster.asking import Asking
from abi.errors import AbiError
async def on_read(self, peer, body):
    import os, sys
    os.write(2, b"it is asked, and hangs up\\n")
    peer.abandon(AbiError("it hangs up"))
    return {}
Asking.on_read = on_read
"""


@pytest.fixture(scope="module")
def made() -> Iterator[list[Member]]:
    making = Making()
    try:
        yield making.cluster(2, before=HANGS_UP)
    finally:
        making.close()


@pytest.fixture
def pair(made: list[Member]) -> list[Member]:
    """The first leads, and hangs up on whoever asks it something; the second has no vote."""
    made[0].up()
    made[1].until(lambda told: told["leader"] == made[0].node, "it follows")
    return made


def test_max_retries(pair: list[Member]) -> None:
    """Of a question to a leader that hangs up each time it is asked, and counts."""
    one, two = pair
    counts = []
    for retries in (0, 2):
        before = one.log().count("it is asked")
        two.reload(f"port = 0\n{QUIET}max_retries = {retries}\n")
        with pytest.raises(NodeUnreachable, match="ended before its answer"):
            two.ask("name-get", name="n")
        counts.append(one.log().count("it is asked") - before)
        two.until(lambda told: told["leader"], "it follows again")
    assert counts == [1, 3]


def test_request_timeout_ms(pair: list[Member]) -> None:
    """Of a question to a leader that is stopped, which ends as `Timeout`, and of one that no majority is there for."""
    one, two = pair

    def ask() -> None:
        with pytest.raises(AbiError) as caught:
            two.ask("name-get", name="n")
        codes.append(caught.value.code)

    codes: list[str] = []
    one.freeze()
    for timeout_ms in (100, 600):
        two.reload(f"port = 0\n{QUIET}request_timeout_ms = {timeout_ms}\n")
        assert_lasts(timeout_ms, ask)
    one.kill()
    one.wait()
    two.until(lambda told: told["leader"] is None, "nobody leads any more")
    assert_lasts(timeout_ms, ask)
    assert codes == [Timeout.code, Timeout.code, "unavailable"]
