"""The hosts for tests, with plain sockets: each fault is what it is called, and nothing is left when they are gone."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import kernel, loss
from tests.hosts.hosts import WAIT_S, Host, Hosts
from tests.system.harness import eventually

TALK = str(Path(__file__).with_name("talk.py"))
PORT = "7000"
SILENCE_S = 1
"""How long nothing is listened to where nothing is to come. Round trips here take a few milliseconds."""


class Talk:
    """``talk.py`` on a host, and what it says."""

    def __init__(self, host: Host, *words: str) -> None:
        self.process = host.open([sys.executable, TALK, *words], stdout=subprocess.PIPE, text=True)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as said:
            for line in said:
                self._said.put(line.strip())

    def next(self) -> str:
        return self._said.get(timeout=WAIT_S)

    def is_silent(self) -> bool:
        try:
            self._said.get(timeout=SILENCE_S)
        except queue.Empty:
            return True
        return False


def said(host: Host, *words: str) -> str:
    done = host.run([sys.executable, TALK, *words])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def served(host: Host) -> Talk:
    server = Talk(host, "serve", PORT)
    assert server.next() == "ready"
    return server


def asked(host: Host, address: str, timeout_s: float = WAIT_S) -> str:
    """Milliseconds, or an error."""
    return said(host, "ask", address, PORT, str(timeout_s))


def can_ask(one: Host, other: Host, timeout_s: float = SILENCE_S) -> bool:
    return asked(one, other.address, timeout_s) not in ("TimeoutError", "OSError")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(3) as made:
        yield made


def test_each_host_has_its_address_and_reaches_the_others(hosts: Hosts) -> None:
    server = served(hosts[1])
    assert float(asked(hosts[0], hosts[1].address)) > 0
    assert server.next() == f"from {hosts[0].address}"
    assert float(asked(hosts[2], hosts[1].address)) > 0
    assert asked(hosts[2], hosts[0].address) == "ConnectionRefusedError"


def test_hosts_are_apart_from_this_machine(hosts: Hosts) -> None:
    here = subprocess.run(["ip", "-br", "addr"], capture_output=True, text=True, check=True).stdout
    assert not any(one.address in here for one in hosts)
    assert asked(hosts[0], "127.0.0.1") == "ConnectionRefusedError"


def test_everybody_hears_a_broadcast(hosts: Hosts) -> None:
    ears = [Talk(one, "hear", PORT) for one in hosts]
    assert [ear.next() for ear in ears] == ["ready"] * 3
    said(hosts[0], "shout", "10.77.0.255", PORT, "hello")
    assert {ear.next() for ear in ears[1:]} == {f"heard hello from {hosts[0].address}"}


LOSSES = {"nft": loss.Nft, "tc": loss.Tc}


@pytest.fixture(params=LOSSES)
def lossy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which(request.param):
        pytest.skip(f"no one-way loss by {request.param}: it is not installed")
    monkeypatch.setattr("tests.hosts.hosts.loss_in", LOSSES[request.param])


@pytest.mark.usefixtures("lossy")
def test_packets_are_lost_one_way_only(hosts: Hosts) -> None:
    one, other, third = hosts
    ears = {host.number: Talk(host, "hear", PORT) for host in (one, other)}
    assert [ear.next() for ear in ears.values()] == ["ready"] * 2
    hosts.block(one, other)
    hosts.block(third, other)
    said(other, "shout", one.address, PORT, "heard")
    assert ears[0].next() == f"heard heard from {other.address}"
    said(one, "shout", other.address, PORT, "lost")
    said(one, "shout", "10.77.0.255", PORT, "lost too")
    hosts.unblock(one, other)
    said(one, "shout", other.address, PORT, "again")
    assert ears[1].next() == f"heard again from {one.address}"
    said(third, "shout", other.address, PORT, "lost as well")
    hosts.heal()
    said(third, "shout", other.address, PORT, "and again")
    assert ears[1].next() == f"heard and again from {third.address}"


@pytest.mark.usefixtures("lossy")
def test_a_split_network_has_two_sides_until_it_heals(hosts: Hosts) -> None:
    for one in hosts:
        served(one)
    hosts.split([hosts[0], hosts[1]], [hosts[2]])
    assert can_ask(hosts[0], hosts[1], WAIT_S)
    assert not can_ask(hosts[0], hosts[2])
    assert not can_ask(hosts[2], hosts[1])
    hosts.heal()
    assert can_ask(hosts[0], hosts[2], WAIT_S)
    assert can_ask(hosts[2], hosts[1], WAIT_S)


def test_a_pulled_cable_is_silence_and_an_interface_without_carrier(hosts: Hosts) -> None:
    server = served(hosts[1])
    holder = Talk(hosts[0], "hold", hosts[1].address, PORT)
    assert holder.next() == "held"
    assert server.next().startswith("from")
    hosts[1].link_down()
    eventually(lambda: "NO-CARRIER" in hosts[1].run(["ip", "link", "show", "eth0"]).stdout, "it sees no carrier")
    assert not can_ask(hosts[0], hosts[1])
    assert holder.is_silent()
    hosts[1].link_up()
    assert can_ask(hosts[0], hosts[1], WAIT_S)
    assert holder.process.poll() is None


def test_a_killed_host_is_heard_of(hosts: Hosts) -> None:
    server = served(hosts[1])
    holder = Talk(hosts[0], "hold", hosts[1].address, PORT)
    assert holder.next() == "held"
    assert server.next().startswith("from")
    hosts[1].kill()
    assert holder.next() == "end"
    assert server.process.returncode == -9
    assert kernel.processes_in(hosts[1].namespace) == []


def test_a_power_cut_is_not_heard_of(hosts: Hosts) -> None:
    server = served(hosts[1])
    holder = Talk(hosts[0], "hold", hosts[1].address, PORT)
    assert holder.next() == "held"
    assert server.next().startswith("from")
    hosts[1].power_off()
    assert holder.is_silent()
    assert kernel.processes_in(hosts[1].namespace) == []
    hosts[1].link_up()
    served(hosts[1])
    assert can_ask(hosts[0], hosts[1], WAIT_S), "it can be switched on again"


def test_a_frozen_host_is_silent_and_goes_on(hosts: Hosts) -> None:
    served(hosts[1])
    hosts[1].freeze()
    assert not can_ask(hosts[0], hosts[1])
    hosts[1].thaw()
    assert can_ask(hosts[0], hosts[1], WAIT_S)


def test_a_slow_link_is_as_slow_as_it_says_and_only_that_one(hosts: Hosts) -> None:
    """A connection and a question: two round trips over one slow link."""
    served(hosts[1])
    served(hosts[2])
    hosts[1].slow(delay_ms=50)
    assert float(asked(hosts[0], hosts[1].address)) >= 200
    eventually(lambda: float(asked(hosts[0], hosts[2].address)) < 200, "another link is not slow")
    hosts[1].fast()
    eventually(lambda: float(asked(hosts[0], hosts[1].address)) < 200, "it is not slow any more")


def test_what_crosses_a_slow_link_arrives_whole(hosts: Hosts) -> None:
    """Large segments, checksums left to the hardware, jitter: all comes through, in order."""
    served(hosts[1])
    hosts[1].slow(delay_ms=1, jitter_ms=2, seed=5)
    assert said(hosts[0], "push", hosts[1].address, PORT, str(4 << 20)) == "equal"


def test_descriptors_and_pid_are_the_programs_own(hosts: Hosts) -> None:
    read_fd, write_fd = os.pipe()
    program = f"import os; os.write({write_fd}, str(os.getpid()).encode())"
    process = hosts[0].open([sys.executable, "-c", program], pass_fds=[write_fd])
    os.close(write_fd)
    with open(read_fd) as pipe:
        assert int(pipe.readline()) == process.pid


def test_nothing_is_left(hosts: Hosts) -> None:
    with Hosts(2) as made:
        held = [made[0].open(["sleep", "1000"]), made[1].open(["sh", "-c", "setsid sleep 1000 & sleep 1000"])]
        made[1].slow(delay_ms=1)
        names = [*(one.namespace for one in made)]
        folder = made[0].folder
        assert set(names) <= set(kernel.namespaces())
    assert not set(names) & set(kernel.namespaces())
    assert [process.returncode for process in held] == [-9, -9]
    assert not folder.exists()
    assert len([name for name in kernel.namespaces() if f"-{os.getpid()}-" in name]) == 4, "the fixture's own"


def test_what_a_dead_run_left_is_removed_and_nothing_else(hosts: Hosts) -> None:
    """From its death on, any run may be the one that removes it."""
    run = subprocess.Popen(["sleep", "1000"])
    left, others = f"abi-{run.pid}-1-h0", f"other-{run.pid}-1-h0"
    for name in (left, others):
        kernel.tell("ip", "netns", "add", name)
    process = subprocess.Popen(["ip", "netns", "exec", left, "sleep", "1000"])
    try:
        while process.pid not in kernel.processes_in(left):
            assert process.poll() is None
        kernel.remove_leftovers()
        assert left in kernel.namespaces(), "its run is alive"
        run.kill()
        run.wait(WAIT_S)
        kernel.remove_leftovers()
        assert process.wait(WAIT_S) == -9
        assert {others, hosts[0].namespace} <= set(kernel.namespaces())
        deadline = time.monotonic() + WAIT_S
        while left in kernel.namespaces():
            assert time.monotonic() < deadline, "it is still there"
    finally:
        run.kill()
        run.wait(WAIT_S)
        kernel.tell("ip", "netns", "del", others)


def test_a_command_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(kernel.CommandFailed, match="no-such-namespace"):
        kernel.tell("ip", "netns", "del", "no-such-namespace")
