"""Hosts for tests: network namespaces on one bridge, which have nothing to do with this machine's own network.

    with Hosts(3) as hosts:
        hosts[0].run([sys.executable, "-c", "..."])
        hosts.block(hosts[0], hosts[1])     # packets from 0 to 1 are lost, those from 1 to 0 are not
        hosts[2].slow(delay_ms=50)
        hosts[1].power_off()                # no packet tells of it

Each has an interface ``eth0``, an IPv4 and an IPv6 address, a folder, and the processes started in it. The bridge is
in a namespace of its own; all names carry the pid of this process, and what dead runs left is removed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tests.hosts import kernel
from tests.hosts.kernel import tell
from tests.hosts.loss import Nft, Tc, loss_in

WAIT_S = 30
"""Bounds every wait. Nothing is timed by it."""
HOSTS_MAX = 200
"""One octet of addresses, with room at its ends."""
_WIRE = Path(__file__).with_name("wire.py")
_serial = itertools.count(1)


class Host:
    """One of ``Hosts``. ``number`` counts from 0."""

    def __init__(self, lan: str, name: str, number: int, folder: Path) -> None:
        self.namespace = name
        self.number = number
        self.address = f"10.77.0.{number + 1}"
        self.address_v6 = f"fd77::{number + 1:x}"
        self.folder = folder
        self.processes: list[subprocess.Popen[Any]] = []
        self._lan = lan
        self._port = f"p{number}"
        self._wire: subprocess.Popen[str] | None = None
        self._loss: Nft | Tc | None = None
        self._unheard: set[str] = set()

    def __repr__(self) -> str:
        return f"<host {self.number}, {self.address}>"

    # --- programs -----------------------------------------------------------------------------------------------------

    def command(self, command: Sequence[str | bytes]) -> list[str | bytes]:
        """What runs this command here; it becomes the command, and keeps its pid and descriptors."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """To its end, its output as text."""
        options = {"capture_output": True, "text": True, "timeout": WAIT_S, "stdin": subprocess.DEVNULL} | options
        return subprocess.run(self.command(command), **options)

    def open(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start it and go on; it ends with the host at the latest."""
        process = subprocess.Popen(self.command(command), **options)
        self.processes.append(process)
        return process

    def freeze(self) -> None:
        """SIGSTOP to everything here, as where a hypervisor pauses a machine."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to everything here. The kernel closes their connections, and the others hear of it."""
        kernel.end_all_in(self.namespace)
        for process in self.processes:
            process.wait(WAIT_S)

    def power_off(self) -> None:
        """Everything here ends, and nobody hears of it."""
        self.link_down()
        self.kill()

    def _signal(self, number: int) -> None:
        for pid in kernel.processes_in(self.namespace):
            os.kill(pid, number)

    # --- the link -----------------------------------------------------------------------------------------------------

    def link_down(self) -> None:
        """Pull the cable: no carrier here, and nothing passes either way."""
        tell("ip", "-n", self._lan, "link", "set", self._port, "down")

    def link_up(self) -> None:
        tell("ip", "-n", self._lan, "link", "set", self._port, "up")
        self._await_link()

    def slow(self, delay_ms: float, jitter_ms: float = 0, seed: int = 1) -> None:
        """Everything to and from here takes so much longer, each way."""
        self.fast()
        near, far = f"w{self.number}", f"v{self.number}"
        lines = [
            f"link add {near} type veth peer name {far}",
            f"link set {self._port} nomaster",
            f"link set {near} up",
            f"link set {far} up master br0",
        ]
        tell("ip", "-n", self._lan, "-b", "-", lines=lines)
        wire = [sys.executable, str(_WIRE), self._port, near, str(delay_ms), str(jitter_ms), str(seed)]
        command = ["ip", "netns", "exec", self._lan, *wire]
        self._wire = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        said: IO[str] | None = self._wire.stdout
        assert said is not None
        assert said.readline() == "ready\n", "the wire did not start"
        self._await_link()

    def fast(self) -> None:
        """Undo ``slow``."""
        if self._wire is None:
            return
        self._wire.kill()
        self._wire.wait(WAIT_S)
        assert self._wire.stdout is not None
        self._wire.stdout.close()
        self._wire = None
        lines = [f"link del w{self.number}", f"link set {self._port} master br0"]
        tell("ip", "-n", self._lan, "-b", "-", lines=lines)
        self._await_link()

    def _await_link(self) -> None:
        """Until the bridge forwards, and the host sees a carrier."""
        bridged = f"v{self.number}" if self._wire else self._port
        deadline = time.monotonic() + WAIT_S
        while not (_is_forwarding(self._lan, bridged) and _has_carrier(self.namespace)):
            assert time.monotonic() < deadline, f"the link of {self} does not come up"
            time.sleep(0.005)

    def lose_from(self, sources: set[str]) -> None:
        """What these IPv4 addresses send does not arrive here; everything else does."""
        if self._loss is None:
            self._loss = loss_in(self.namespace)
        self._loss.set(sources)
        self._unheard = set(sources)

    @property
    def unheard(self) -> set[str]:
        return set(self._unheard)

    def close(self) -> None:
        kernel.end_all_in(self.namespace)
        for process in self.processes:
            process.wait(WAIT_S)
        if self._wire is not None:
            self._wire.kill()
            self._wire.wait(WAIT_S)
            assert self._wire.stdout is not None
            self._wire.stdout.close()


class Hosts:
    """``count`` hosts on one network; a context manager."""

    def __init__(self, count: int) -> None:
        assert 0 < count <= HOSTS_MAX
        self._prefix = f"abi-{os.getpid()}-{next(_serial)}"
        self._lan = f"{self._prefix}-lan"
        self._folder = tempfile.TemporaryDirectory(prefix="abi-hosts-")
        folders = [Path(self._folder.name) / f"h{number}" for number in range(count)]
        self._all = [Host(self._lan, f"{self._prefix}-h{n}", n, folder) for n, folder in enumerate(folders)]

    def __enter__(self) -> Hosts:
        kernel.remove_leftovers()
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        tell("ip", "-b", "-", lines=[f"netns add {name}" for name in (self._lan, *(one.namespace for one in self))])
        # The bridge is a switch, and says nothing itself.
        quiet = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
        tell("ip", "netns", "exec", self._lan, "sh", "-c", quiet)
        tell("ip", "-n", self._lan, "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0")
        ports = [f"link add p{one.number} netns {self._lan} type veth peer eth0 netns {one.namespace}" for one in self]
        tell("ip", "-b", "-", lines=ports)
        for one in self:
            one.folder.mkdir()
            lines = [
                "link set lo up",
                "link set eth0 up",
                f"addr add {one.address}/24 brd + dev eth0",
                f"addr add {one.address_v6}/64 dev eth0 nodad",
            ]
            tell("ip", "-n", one.namespace, "-b", "-", lines=lines)
        tell("ip", "-n", self._lan, "-b", "-", lines=[f"link set p{one.number} up master br0" for one in self])
        for one in self:
            one._await_link()

    def __exit__(self, *_: object) -> None:
        there = set(kernel.namespaces())
        for one in self:
            if one.namespace in there:
                one.close()
                tell("ip", "netns", "del", one.namespace)
        if self._lan in there:
            tell("ip", "netns", "del", self._lan)
        self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Host]:
        return iter(self._all)

    def __getitem__(self, number: int) -> Host:
        return self._all[number]

    def block(self, sender: Host, receiver: Host) -> None:
        """IPv4 packets from one to the other are lost; those the other way are not."""
        receiver.lose_from(receiver.unheard | {sender.address})

    def unblock(self, sender: Host, receiver: Host) -> None:
        receiver.lose_from(receiver.unheard - {sender.address})

    def split(self, *sides: Sequence[Host]) -> None:
        """Hosts of different sides do not hear each other."""
        for side in sides:
            others = {one.address for other in sides if other is not side for one in other}
            for one in side:
                one.lose_from(one.unheard | others)

    def heal(self) -> None:
        """Nothing is lost any more."""
        for one in self:
            if one.unheard:
                one.lose_from(set())


def _is_forwarding(lan: str, port: str) -> bool:
    [shown] = json.loads(tell("ip", "-n", lan, "-j", "-d", "link", "show", port))
    return bool(shown.get("linkinfo", {}).get("info_slave_data", {}).get("state") == "forwarding")


def _has_carrier(namespace: str) -> bool:
    [shown] = json.loads(tell("ip", "-n", namespace, "-j", "link", "show", "eth0"))
    return bool(shown["operstate"] == "UP")
