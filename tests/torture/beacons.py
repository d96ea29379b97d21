"""Beacons that lie, at one member, and what it does about them; and how to see that it speaks and hears.

Beacons are sealed with the cluster's key, so what is forged opens for nobody. What was recorded opens, and may name an
address of somebody who is gone: it is dialled, once a second at most, whatever is said how often. Here the key is known
to the test, which plays the recorder: its beacons are as the cluster's own.
"""

from __future__ import annotations

import ipaddress
import itertools
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from abid.cluster import credentials
from abid.cluster.beacon import Claim, Seals
from abid.cluster.discovery import DEFAULT_PORT
from abid.cluster.secret import beacon_key
from abid.core.discovery import Beacon
from abid.core.hearing import COUNT_BITS
from tests.hosts.hosts import Host
from tests.torture.figures import Figure, seen
from tests.torture.fleet import Fleet
from tests.torture.scenario import Options, Scenario
from tests.torture.watching import Watch, deaths_in, terms_gained

WAIT_S: Final = 30
"""Bounds every wait; a beacon is said every five seconds."""
FLOOD: Final = str(Path(__file__).parents[1] / "daemon" / "cluster_discovery" / "flood.py")
PER_SECOND: Final = 10_000
RECORDED_PER_SECOND: Final = 10
"""Recorded beacons that were never heard before: each is opened, and names the address."""
SPACING_S: Final = 0.9
"""Two dials closer than this are too close; a second less what a busy machine takes to accept."""
NODE: Final = bytes.fromhex("fe000001")
"""Of nobody."""

_SAY: Final = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for line in sys.stdin:
        host, packet = line.split()
        sock.sendto(bytes.fromhex(packet), (host, int(sys.argv[1])))
"""
_HEAR: Final = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    print("ready", flush=True)
    while True:
        packet, source = sock.recvfrom(1 << 16)
        print(source[0], packet.hex(), flush=True)
"""
_ANSWER: Final = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        connection, source = server.accept()
        connection.close()
        print(source[0], flush=True)
"""


class Lines:
    """A Python program on a host, and the lines that it prints, with when they came."""

    def __init__(self, host: Host, program: str, *words: str) -> None:
        pipe = subprocess.PIPE
        self.process = host.open([sys.executable, "-c", program, *words], stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._ear, self._mouth = self.process.stdout, self.process.stdin
        self._said: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._ear as said:
            for line in said:
                self._said.put((time.monotonic(), line.strip()))

    def next(self, within_s: float = WAIT_S) -> tuple[float, str]:
        """Raises queue.Empty."""
        return self._said.get(timeout=max(0.0, within_s))

    def all(self) -> list[tuple[float, str]]:
        """What was said and not taken yet."""
        found = []
        while not self._said.empty():
            found.append(self._said.get())
        return found

    def tell(self, line: str) -> None:
        self._mouth.write(line + "\n")
        self._mouth.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)
        self._mouth.close()


class Recorder:
    """On a host, with the cluster's key: says beacons of nobody, which name an address where it notes who dials."""

    def __init__(self, fleet: Fleet, member: int, host: int) -> None:
        found = credentials.load(fleet.daemons[member].state_dir / "cluster")
        assert found is not None, "it is no member"
        self.seals = Seals([beacon_key(found.secret)])
        self._numbers = itertools.count(1 << COUNT_BITS)
        self._host = fleet.hosts[host]
        self._voice = Lines(self._host, _SAY, str(DEFAULT_PORT))
        self.dialled = Lines(self._host, _ANSWER, self._host.address)
        self._port = int(self.dialled.next()[1])

    def packet(self) -> bytes:
        """A beacon that nobody has heard yet."""
        own = ipaddress.ip_address(self._host.address).packed
        return self.seals.seal(NODE, next(self._numbers), Beacon(self._port, (own,)))

    def say(self, to: Host, packet: bytes) -> None:
        self._voice.tell(f"{to.address} {packet.hex()}")

    def is_heard_by(self, host: Host, within_s: float = WAIT_S) -> bool:
        """Whether this host dials what a beacon names, said again each second: the first dial may be put off."""
        deadline = time.monotonic() + within_s
        self.dialled.all()
        while time.monotonic() < deadline:
            self.say(host, self.packet())
            try:
                while self.dialled.next(1)[1] != host.address:
                    pass
                return True
            except queue.Empty:
                continue
        return False

    def hears(self, host: Host, within_s: float = WAIT_S) -> bool:
        """Whether this host says beacons that open."""
        network = ipaddress.ip_interface(f"{self._host.address}/24").network
        ear = Lines(self._host, _HEAR, str(network.broadcast_address), str(DEFAULT_PORT))
        deadline = time.monotonic() + within_s
        try:
            assert ear.next()[1] == "ready"
            while True:
                source, packet = ear.next(deadline - time.monotonic())[1].split()
                if source == host.address and self._opens(bytes.fromhex(packet)):
                    return True
        except queue.Empty:
            return False
        finally:
            ear.close()

    def _opens(self, packet: bytes) -> bool:
        claim: Claim | None = self.seals.claim(packet)
        return claim is not None and self.seals.open(packet) is not None

    def close(self) -> None:
        self._voice.close()
        self.dialled.close()


def flooded(fleet: Fleet, recorder: Recorder, target: int, source: int, for_s: float) -> tuple[int, list[float]]:
    """Forged and replayed beacons in equal parts, and recorded ones, at one member. How many were sent a second, and
    when the address that they name was dialled."""
    to, example = fleet.hosts[target], recorder.packet().hex()
    words = [to.address, str(DEFAULT_PORT), str(PER_SECOND // 2), str(for_s), example]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    floods = [fleet.hosts[source].open([sys.executable, FLOOD, kind, *words], **options) for kind in _KINDS]
    recorder.dialled.all()
    began = time.monotonic()
    for count in range(int(for_s * RECORDED_PER_SECOND)):
        time.sleep(max(0.0, began + count / RECORDED_PER_SECOND - time.monotonic()))
        recorder.say(to, recorder.packet())
    sent = [int(flood.communicate(timeout=WAIT_S)[0]) for flood in floods]
    return sum(sent), [at for at, who in recorder.dialled.all() if who == to.address]


_KINDS: Final = ("forged", "replayed")


def too_close(moments: list[float]) -> int:
    """How many came sooner than ``SPACING_S`` after the one before."""
    return sum(later - earlier < SPACING_S for earlier, later in itertools.pairwise(moments))


def cpu_percent(fleet: Fleet, number: int, for_s: float) -> float:
    """Of a core, of a member that is left alone meanwhile."""
    before, began = fleet.cpu_s(number), time.monotonic()
    time.sleep(for_s)
    return 100 * (fleet.cpu_s(number) - before) / (time.monotonic() - began)


def deaths(fleet: Fleet) -> int:
    """How often a daemon's log calls a member dead, so far."""
    return sum(len(deaths_in(daemon.log())) for daemon in fleet.daemons)


def lied_to(fleet: Fleet, recorder: Recorder, target: int, source: int, for_s: float) -> list[Figure]:
    """All figures of one flood at ``target``, in a cluster of those that are not ``source``."""
    members = [number for number in range(len(fleet)) if number != source]
    idle = cpu_percent(fleet, target, min(for_s, 20))
    named, dead = [fleet.status(number)["nodes"] for number in members], deaths(fleet)
    with Watch(fleet.status, [number for number in members if number != target]) as watch:
        before, began = fleet.cpu_s(target), time.monotonic()
        sent, dialled = flooded(fleet, recorder, target, source, for_s)
        took_s = time.monotonic() - began
        percent = 100 * (fleet.cpu_s(target) - before) / took_s
    now_named = [fleet.status(number)["nodes"] for number in members]
    return [
        Figure("members that changed", sum(a != b for a, b in zip(named, now_named, strict=True)), "", 0),
        Figure("members called dead", deaths(fleet) - dead, "", 0),
        Figure("elections", terms_gained(watch.series), "", 0),
        Figure("CPU more than idle", percent - idle, "% of a core", 10),
        Figure("dials of one address after the first", max(0, len(dialled) - 1) / took_s, "a second", 1),
        Figure("dials within a second of another", too_close(dialled), "", 0),
        seen("beacons sent", sent, "a second"),
        seen("dials", len(dialled), ""),
        seen("idle CPU", idle, "% of a core"),
    ]


def beacons(options: Options) -> list[Figure]:
    """At a follower, for ``minutes``."""
    with Fleet(4) as fleet:
        fleet.form([0, 1, 2])
        leader, _ = fleet.await_leader(among=[0, 1, 2])
        target = (leader + 1) % 3
        recorder = Recorder(fleet, leader, 3)
        try:
            return lied_to(fleet, recorder, target, 3, options.minutes * 60)
        finally:
            recorder.close()


SCENARIOS = (
    Scenario(
        "beacons", "forged and replayed beacons, 10,000 a second at one member: nothing changes",
        beacons, minutes=1,
    ),
)  # fmt: skip
