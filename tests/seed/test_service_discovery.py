"""The seed's row "Service discovery", each of its ways by itself: two members that have told the cluster an address at
which nobody is, so that only what is configured, named by a person, or remembered leads from one to the other.

(The beacon on the local network, and subnets: test_on_a_lan.py.)
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

import pytest

from abid.cluster import remembered
from abid.cluster.finding import registered
from tests.ports import free_tcp_port
from tests.seed.members import Making
from tests.system.harness import eventually

NOWHERE = "127.0.0.1:1"
INTERVAL_MS = 100


class Apart:
    """``asker`` looks for ``there``, which listens at ``place``."""

    def __init__(self, making: Making) -> None:
        self.ports = free_tcp_port(), free_tcp_port()
        self.there, self.asker = (making.add(options=self.options(port))[0] for port in self.ports)
        self.place = f"127.0.0.1:{self.ports[0]}"
        self.there.ask("cluster-init")
        token = self.there.ask("cluster-token")["token"]
        told = self.asker.ask("cluster-join", token=token, addresses=[self.place])
        assert len(told["nodes"]) == 2, "where it joined it is at once heard from the cluster"

    def options(self, port: int, more: str = "") -> str:
        """A port each, so that one's beacons are not the other's."""
        return f'port = {port}\naddress = "{NOWHERE}"\nbroadcast_interval_ms = {INTERVAL_MS}\n{more}'

    def start_anew(self, more: str = "", *, remembering: bool = False) -> None:
        """The asker, knowing nothing of any place but what ``more`` says, and perhaps what it remembers."""
        self.asker.kill()
        self.asker.wait()
        if not remembering:
            (self.asker.state_dir / "cluster" / remembered.FILE).unlink(missing_ok=True)
        self.asker.restart(self.options(self.ports[1], more))

    def await_connected(self) -> None:
        self.asker.until(lambda _: self.asker.sees(self.there)["connected"], "it has found the other")

    def is_remembered(self) -> bool:
        return self.place in [str(peer.address) for peer in remembered.load(self.asker.state_dir / "cluster")]

    def await_remembered(self) -> None:
        """It is written soon after the other was met, by another thread."""
        eventually(self.is_remembered, "where it met the other is on its disk")


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    making = Making()
    try:
        yield Apart(making)
    finally:
        making.close()


def test_without_any_of_them_nobody_is_found(apart: Apart) -> None:
    """What the other tests here stand on."""
    apart.start_anew()
    looked_until = time.monotonic() + 10 * INTERVAL_MS / 1000
    while time.monotonic() < looked_until:
        assert not apart.asker.sees(apart.there)["connected"]
        time.sleep(INTERVAL_MS / 1000)


def test_a_seed(apart: Apart) -> None:
    apart.start_anew(f'seeds = ["{apart.place}"]\n')
    apart.await_connected()


def test_a_dns_name(apart: Apart) -> None:
    apart.start_anew(f'seeds = ["localhost:{apart.ports[0]}"]\n')
    apart.await_connected()


def test_an_exec_hook(apart: Apart) -> None:
    """For inventories of clouds: a program that prints where hosts are."""
    hook = apart.asker.folder / "hook"
    hook.write_text(f'#!/bin/sh\necho "{NOWHERE}"\necho "$1"\n')
    os.chmod(hook, stat.S_IRWXU)
    apart.start_anew(f'exec_hook = "{hook} {apart.place}"\n')
    apart.await_connected()


def test_peers_are_remembered_on_disk(apart: Apart) -> None:
    if not apart.is_remembered():
        apart.start_anew(f'seeds = ["{apart.place}"]\n')
        apart.await_connected()
    apart.await_remembered()
    apart.start_anew(remembering=True)
    apart.await_connected()


def test_register_dials_a_host_and_what_it_added_is_there_after_a_restart(apart: Apart) -> None:
    apart.start_anew()
    done = apart.asker.run("abi", "network", "register", "--host", apart.place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{apart.place} is remembered, and answers as node {apart.there.node}\n"
    apart.await_connected()
    apart.await_remembered()
    apart.start_anew(remembering=True)
    apart.await_connected()
    assert apart.place in registered(apart.asker.state_dir / "cluster")


def test_a_host_registered_before_it_joins_anything_is_remembered_too(making: Making, apart: Apart) -> None:
    (newcomer,) = making.add(options=apart.options(free_tcp_port()))
    told = newcomer.ask("network-register", host=apart.place)
    assert (told["registered"], told["joined"]) == ([apart.place], False)
    token = apart.there.ask("cluster-token")["token"]  # it names only where nobody is
    assert apart.there.node in [node["id"] for node in newcomer.ask("cluster-join", token=token)["nodes"]]
