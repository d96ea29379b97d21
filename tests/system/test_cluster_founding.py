"""What a founding leaves behind when it fails, or when the power fails, and where a member listens afterwards."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.ports import free_tcp_port
from tests.system.clusters import status
from tests.system.harness import Daemon

QUIET = {"ABI_NETWORK_BIND": "127.0.0.1", "ABI_NETWORK_DISCOVERY_ENABLED": "false"}
_POWER_FAILS = """
import os
replace = os.replace

def failing(old, new):
    when = os.environ.get("TEST_POWER_FAILS", "")
    if when == "before" and str(new).endswith("node.pem"):
        os._exit(9)
    replace(old, new)
    if when == "after" and str(new).endswith("node.pem"):
        os._exit(9)

os.replace = failing
"""


@contextmanager
def running(**options: Any) -> Iterator[Daemon]:
    made = Daemon(cpus=1, **{**QUIET, **options})
    try:
        yield made
    finally:
        made.close()


@contextmanager
def taken(port: int) -> Iterator[int]:
    """A port on loopback that somebody else has."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        yield int(sock.getsockname()[1])


def restart(host: Daemon, **environment: str) -> None:
    if host.process.poll() is None:
        host.kill(signal.SIGTERM)
    host.wait()
    host.environment |= environment
    host.start()


def test_a_founding_that_fails_leaves_nothing_and_can_be_done_again() -> None:
    port = free_tcp_port()
    with running(ABI_NETWORK_PORT=str(port)) as host:
        with taken(port):
            done = host.run("abi", "cluster", "init", "--json")
        assert done.returncode != 0
        assert f"port {port}" in json.loads(done.stderr)["error"]["message"]
        folder = host.state_dir / "cluster"
        assert not folder.exists() or list(folder.iterdir()) == []
        assert not status(host)["joined"]
        assert host.json("abi", "cluster", "init")["port"] == port


@pytest.mark.parametrize(("when", "is_member"), [("before", False), ("after", True)])
def test_a_power_failure_while_it_founds_leaves_no_cluster_or_a_whole_one(when: str, is_member: bool) -> None:
    with running(ABI_NETWORK_PORT="0", before=_POWER_FAILS, TEST_POWER_FAILS=when) as host:
        assert host.run("abi", "cluster", "init").returncode != 0
        assert host.wait() == 9
        restart(host, TEST_POWER_FAILS="")
        assert status(host)["joined"] == is_member
        if not is_member:
            assert host.run("abi", "cluster", "init").returncode == 0
        host.run("abi", "cluster", "token")
        told = status(host)
        assert (told["role"], told["voters"]) == ("leader", [told["node"]])


def test_a_port_that_is_set_after_the_founding_counts() -> None:
    with running(ABI_NETWORK_PORT="0") as host:
        first = host.json("abi", "cluster", "init")["port"]
        restart(host)
        assert status(host)["port"] == first, "others know it"
        chosen = free_tcp_port()
        restart(host, ABI_NETWORK_PORT=str(chosen))
        told = status(host)
        assert (told["port"], told["nodes"][0]["address"]) == (chosen, f"127.0.0.1:{chosen}")
        host.kill(signal.SIGTERM)
        host.wait()
        with taken(chosen):
            restart(host, ABI_NETWORK_PORT="0")
            told = status(host)
            assert told["port"] not in (0, chosen)
        assert told["joined"]
