"""Discovery with real sockets, over loopback: members find each other, remember, and are quiet when told to be."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abid.cluster import remembered
from abid.cluster.beacon import Seals
from abid.core.discovery import Beacon
from tests.daemon.cluster_discovery.members import Running, running
from tests.ports import free_tcp_port, free_udp_port

INTERVAL_MS = 500
"""Short, so that these tests are; the rules' own tests have the usual one."""
FLOOD = Path(__file__).with_name("flood.py")
Make = Callable[..., Running]


def host(number: int) -> str:
    """An address of loopback that no test of another process has. Below 16."""
    own = (os.getpid() << 4 | number) & 0x3FFFFF
    return f"127.{64 + (own >> 16)}.{own >> 8 & 255}.{own & 255}"


def at(number: int) -> str:
    return f"{host(number)}:9000"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """All of a test share a discovery port and a key that nobody else uses."""
    port, key = free_udp_port(), os.urandom(16).hex()
    with running() as started:

        def member(number: int, *, options: dict[str, object] | None = None, **words: object) -> Running:
            told = {"port": port, "interval_ms": INTERVAL_MS} | (options or {})
            folder = tmp_path / str(number)
            words = {"only_loopback": host(number), "key": key} | words
            return started(subprocess.Popen, folder, number, options=told, **words)

        yield member


def test_two_members_find_each_other_with_nothing_configured(make: Make) -> None:
    one, other = make(1), make(2)
    assert one.next("connected")["node"] == other.node
    assert other.next("connected")["node"] == one.node


def test_members_of_another_cluster_are_not_heard(make: Make) -> None:
    one = make(1)
    make(2, key="x" * 32)
    third = make(3)
    assert one.next("connected")["node"] == third.node
    assert {address for _, address in one.dials + third.dials} <= {at(1), at(3)}


def test_who_was_met_is_dialled_after_a_restart_where_nothing_is_heard(make: Make, tmp_path: Path) -> None:
    one, other = make(1), make(2)
    one.next("connected")
    one.stop()
    met = remembered.load(tmp_path / "1")
    assert [(str(peer.address), peer.node.hex()) for peer in met] == [(at(2), other.node)]
    # It shares no discovery port with anybody now.
    again = make(1, boot=2, options={"port": free_udp_port()})
    assert again.next("connected")["node"] == other.node


def test_a_name_among_the_seeds_is_looked_up(make: Make) -> None:
    """`localhost` is the name that every machine knows."""
    listening = free_tcp_port()
    other = make(2, only_loopback="127.0.0.1", listening=listening, options={"port": free_udp_port()})
    one = make(1, options={"port": free_udp_port(), "seeds": [f"localhost:{listening}"]})
    assert one.next("connected")["node"] == other.node


def test_the_hook_is_asked_when_nobody_else_helped(make: Make, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\necho {at(2)}\n")
    hook.chmod(0o700)
    other = make(2, options={"port": free_udp_port()})
    one = make(1, options={"port": free_udp_port(), "exec_hook": str(hook)})
    assert one.next("connected")["node"] == other.node


def test_a_registered_address_is_dialled_now_and_after_a_restart(make: Make) -> None:
    one = make(1, options={"port": free_udp_port()})
    other = make(2, options={"port": free_udp_port()})
    assert one.ask("register", at(2), answer="registered")["addresses"] == [at(2)]
    assert one.next("connected")["node"] == other.node
    one.stop()
    again = make(1, boot=2, options={"port": free_udp_port()})
    assert again.next("connected")["node"] == other.node
    assert again.ask("peers", answer="peers")["peers"] == [[at(2), other.node, True]]
    again.ask("unregister", host(2), "9000", answer="unregistered")
    again.stop()
    third = make(1, boot=3, options={"port": free_udp_port()})
    assert third.ask("peers", answer="peers")["peers"] == []


def test_what_cannot_be_registered_is_said(make: Make) -> None:
    one = make(1)
    assert "is no HOST" in one.ask("register", "a:b:c", answer="refused")["message"]


def test_our_own_address_among_the_seeds_is_dialled_once(make: Make) -> None:
    one = make(1, options={"seeds": [at(1)]})
    other = make(2)
    assert one.next("connected")["node"] == other.node
    other.process.kill()
    one.next("closed")  # lonely: everything that may be dialled is
    other = make(2, boot=2)
    assert one.next("connected")["node"] == other.node
    assert [address for _, address in one.dials].count(at(1)) == 1


def test_a_member_that_comes_back_is_met_again(make: Make) -> None:
    one, other = make(1), make(2)
    one.next("connected")
    other.process.kill()
    assert one.next("closed")["node"] == other.node
    again = make(2, boot=2)
    assert one.next("connected")["node"] == again.node


def test_what_peers_are_told_to_dial_can_be_set(make: Make) -> None:
    """Here nobody passes anything on: that it is dialled is all. The other says of itself what leads nowhere."""
    forwarded = free_tcp_port()
    with socket.create_server((host(9), forwarded)) as forwarder:
        forwarder.settimeout(30)
        make(2, options={"address": f"{host(9)}:{forwarded}"})
        make(1, options={"address": f"{host(8)}:1"})
        connection, _ = forwarder.accept()
        connection.close()


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process has; one that it closes meanwhile may be among them or not."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(fd))
    return {link[8:-1] for link in links if link.startswith("socket:")}


def udp_sockets_of(pid: int) -> list[str]:
    held = sockets_of(pid)
    lines = [
        line.split()
        for name in ("udp", "udp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [words[1] for words in lines if words[9] in held]


def test_switched_off_there_is_no_socket_and_nobody_is_found(make: Make) -> None:
    seen = make(2)
    off = make(1, options={"enabled": False, "seeds": [at(2)], "subnets": [f"{host(0)}/32"]})
    assert udp_sockets_of(off.process.pid) == []
    assert udp_sockets_of(seen.process.pid) != [], "so would it look with discovery"
    off.ask("register", at(2), answer="registered")
    assert off.next("connected")["node"] == seen.node, "what a person says is done"
    assert [address for _, address in off.dials] == [at(2)]
    assert udp_sockets_of(off.process.pid) == []


def test_no_socket_is_bound_to_the_wildcard(make: Make) -> None:
    bound = udp_sockets_of(make(1).process.pid)
    assert len(bound) == 3  # its own address, the broadcast one, the group
    assert not [address for address in bound if address.startswith("00000000:")]


def test_what_is_no_beacon_harms_nobody(make: Make) -> None:
    port = free_udp_port()
    one = make(1, options={"port": port})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for length in range(0, 1400, 7):
            sock.sendto(os.urandom(length), (host(1), port))
    other = make(2, options={"port": port})
    assert one.next("connected")["node"] == other.node


FLOOD_PER_SECOND = 10_000


@contextlib.contextmanager
def flooded(kind: str, port: int, example: bytes) -> Iterator[None]:
    """Member 1, with that many packets a second, from before the first line inside to after the last."""
    flood = [sys.executable, str(FLOOD), kind, host(1), str(port), str(FLOOD_PER_SECOND), "inf", example.hex()]
    with subprocess.Popen(flood, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flooding:
        assert flooding.stdout.readline() == "begun\n"
        try:
            yield
            assert flooding.poll() is None
        finally:
            flooding.communicate()


@pytest.mark.parametrize("kind", ["noise", "strange", "forged", "replayed"])
def test_a_flood_hides_nobody_and_has_nobody_dialled(make: Make, kind: str) -> None:
    """Ten thousand packets a second. The example was sealed by a member that is no more."""
    port, key = free_udp_port(), os.urandom(16).hex()
    one = make(1, key=key, options={"port": port})
    example = Seals([key.encode()]).seal(b"\0\0\0\7", 9, Beacon(9000, (bytes(map(int, host(7).split("."))),)))
    began = time.monotonic()
    with flooded(kind, port, example):
        if kind == "replayed":  # heard for the first time it is believed, and nobody answers there
            assert one.next("dial")["address"] == at(7)
        other = make(2, key=key, options={"port": port})
        assert one.next("connected")["node"] == other.node
    dials = [when for when, address in one.dials if address == at(7)]
    # One dial a second at most: the rules' own test holds the spacing, which here a busy machine's lateness would blur.
    assert len(dials) <= time.monotonic() - began + 1 if kind == "replayed" else not dials
