"""Hosts for tests that are one cluster: a daemon on each, founded and joined as people do it, and asked what it thinks.

    with Fleet(3) as fleet:
        fleet.form()
        leader, term = fleet.await_leader()
        fleet.kill(leader)
        fleet.await_leader(not_=leader, above=term)
        fleet.restart(leader)
        fleet.await_settled()

Hosts are named by number, from 0 on. All that is asked goes over the daemon's Unix socket, as its own commands would,
and not over the hosts' network: so nothing that is done to the network disturbs the asking, which costs under a
millisecond. Every thread has connections of its own.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from abi import control
from abi.errors import DaemonUnreachable
from tests.hosts.daemon import HostDaemon
from tests.hosts.hosts import Hosts
from tests.system.harness import WAIT_S, below, eventually, rss_bytes, state_of

POLL_S: Final = 0.003
"""Between two looks at what the daemons think."""
LOG_LINES_SHOWN: Final = 40
"""Of each daemon, where something broke."""


def wanted_voters(members: int) -> int:
    """The design's words: one of up to two, three of up to six, five of seven and more."""
    return 1 if members < 3 else 3 if members < 7 else 5


class Fleet:
    """``options``: the daemons' whole configuration file, TOML; without it they are configured as a user's are, by
    nothing. ``before``: Python that runs in each daemon before its own main. ``environments``: of each
    daemon, beside its own."""

    def __init__(
        self, count: int, *, options: str = "", before: str = "", environments: Sequence[Mapping[str, str]] = ()
    ) -> None:
        self.hosts = Hosts(count)
        self.daemons: list[HostDaemon] = []
        self.nodes: list[str] = []
        """The node of each."""
        self.down: set[int] = set()
        """Killed, without power, or stopped: asked only by name."""
        self._without_power: set[int] = set()
        self._options, self._before = options, before
        self._environments = environments or [{}] * count
        self._lives = [0] * count
        self._lines = threading.local()

    def __len__(self) -> int:
        return len(self.hosts)

    def __enter__(self) -> Fleet:
        self.hosts.__enter__()
        try:
            self._start_all()
        except BaseException:
            self.hosts.__exit__()
            raise
        return self

    def _start_all(self) -> None:
        def started(number: int) -> HostDaemon:
            more = self._environments[number]
            return HostDaemon(self.hosts[number], cpus=1, config=self._options, before=self._before, **more)

        with ThreadPoolExecutor(len(self)) as pool:
            self.daemons = list(pool.map(started, range(len(self))))
        self.nodes = [str(self.status(number)["node"]) for number in range(len(self))]

    def __exit__(self, kind: object = None, *_: object) -> None:
        if kind is not None and kind is not KeyboardInterrupt:
            self._show_logs()
        self.hosts.__exit__()  # all that runs there ends
        for daemon in self.daemons:
            daemon.close()

    def _show_logs(self) -> None:
        for number, daemon in enumerate(self.daemons):
            print(f"--- the daemon of host {number}, node {self.nodes[number : number + 1]}", file=sys.stderr)
            print("\n".join(daemon.log().splitlines()[-LOG_LINES_SHOWN:]), file=sys.stderr)

    # What it is told and asked.

    def ask(self, number: int, verb: str, *, within_s: float = WAIT_S, **words: Any) -> dict[str, Any]:
        """A control request. Raises what the daemon answers, and DaemonUnreachable where it does not."""
        try:
            answer: dict[str, Any] = self._line(number).request(verb, answer_timeout=within_s, **words)
        except DaemonUnreachable:
            self._hang_up(number)
            raise
        return answer

    def status(self, number: int, *, within_s: float = WAIT_S) -> dict[str, Any]:
        """As `abi network status --json`."""
        return self.ask(number, "network-status", within_s=within_s)

    def connect(self, number: int) -> None:
        """This thread's connection, made now: what is asked next lies in the socket at once, also of one that is
        stopped meanwhile."""
        self._line(number)

    def _line(self, number: int) -> control.Control:
        lines = self._of_this_thread()
        life, line = lines.get(number, (-1, None))
        if line is None or life != self._lives[number]:
            self._hang_up(number)
            life = self._lives[number]
            line = control.connect(WAIT_S, [str(self.daemons[number].runtime_dir / "abid.sock")])
            lines[number] = life, line
        return line

    def _hang_up(self, number: int) -> None:
        _, line = self._of_this_thread().pop(number, (-1, None))
        if line is not None:
            line.close()

    def _of_this_thread(self) -> dict[int, tuple[int, control.Control]]:
        if not hasattr(self._lines, "by_number"):
            self._lines.by_number = {}
        found: dict[int, tuple[int, control.Control]] = self._lines.by_number
        return found

    # The cluster.

    def form(self, members: Sequence[int] | None = None) -> None:
        """The first founds it and the others join with a token of its; all, if none are named. Returns when it is
        settled."""
        first, *others = range(len(self)) if members is None else members
        self.ask(first, "cluster-init")
        if others:
            token = self.ask(first, "cluster-token", uses=len(others))["token"]
            for number in others:
                self.ask(number, "cluster-join", token=token)
        self.await_settled(members)

    def up(self) -> list[int]:
        return [number for number in range(len(self)) if number not in self.down]

    def leader(self, among: Iterable[int] | None = None) -> int | None:
        """Who leads in the eyes of a majority of those asked, itself included; all that are up, if none are named."""
        found = self.led(among)
        return None if found is None else found[0]

    def led(self, among: Iterable[int] | None = None) -> tuple[int, int] | None:
        """As ``leader``, with its term."""
        asked = self.up() if among is None else list(among)
        told: dict[int, dict[str, Any]] = {}
        for number in asked:
            with contextlib.suppress(DaemonUnreachable):
                told[number] = self.status(number)
        named = Counter((one["leader"], one["term"]) for one in told.values() if one.get("leader"))
        for (node, term), count in named.items():
            number = self.nodes.index(node)
            if 2 * count > len(asked) and (number not in told or told[number]["role"] == "leader"):
                return number, term
        return None

    def await_leader(
        self,
        not_: int | None = None,
        within_s: float = WAIT_S,
        *,
        among: Iterable[int] | None = None,
        above: int = 0,
    ) -> tuple[int, int]:
        """Its number and its term: another than ``not_``, in a term above ``above``."""
        asked = self.up() if among is None else list(among)

        def found() -> tuple[int, int] | None:
            led = self.led(asked)
            return led if led is not None and led[0] != not_ and led[1] > above else None

        led: tuple[int, int] = self._await(found, f"a majority of {asked} agrees on a leader", within_s)
        return led

    def await_settled(self, members: Iterable[int] | None = None, within_s: float = WAIT_S) -> None:
        """Until these are one cluster in which nothing is left to be done; all that are up, if none are named."""
        asked = self.up() if members is None else list(members)
        said: list[str] = [""]

        def settled() -> bool:
            said[0] = self.why_not_settled(asked)
            return not said[0]

        try:
            self._await(settled, "", within_s)
        except AssertionError:
            raise AssertionError(f"the cluster did not settle within {within_s} s: {said[0]}") from None

    def why_not_settled(self, members: Sequence[int]) -> str:
        """See the function below; empty: they are."""
        told = []
        for number in members:
            try:
                told.append(self.status(number))
            except DaemonUnreachable as error:
                return f"host {number}: {error.message}"
        return why_not_settled([self.nodes[number] for number in members], told)

    def _await(self, condition: Callable[[], Any], what: str, within_s: float) -> Any:
        """The first true value."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
            time.sleep(POLL_S)
        return found

    # What is done to them.

    def kill(self, *numbers: int) -> None:
        """SIGKILL to the daemons, all in one instant, until they are dead; the kernel closes their connections."""
        for number in numbers:
            self.daemons[number].kill(signal.SIGKILL)
        self.down.update(numbers)
        for number in numbers:
            self.daemons[number].wait()

    def power_off(self, number: int) -> None:
        """The whole host, without a packet."""
        self.down.add(number)
        self._without_power.add(number)
        self.hosts[number].power_off()

    def restart(self, *numbers: int) -> None:
        """After ``kill`` or ``power_off``. Returns when the daemons say that they are ready."""
        for number in numbers:
            if number in self._without_power:
                self.hosts[number].link_up()
            self._lives[number] += 1
        with ThreadPoolExecutor(len(numbers)) as pool:
            list(pool.map(lambda number: self.daemons[number].start(), numbers))
        self.down.difference_update(numbers)
        self._without_power.difference_update(numbers)

    def freeze(self, number: int) -> None:
        """SIGSTOP to the daemon; its connections stay open."""
        daemon = self.daemons[number]
        daemon.kill(signal.SIGSTOP)
        self.down.add(number)
        eventually(lambda: state_of(daemon.pid) == "T", "it is stopped")

    def thaw(self, number: int) -> None:
        self.daemons[number].kill(signal.SIGCONT)
        self.down.discard(number)

    # What they cost.

    def rss(self, number: int) -> int:
        """Bytes of memory that the daemon has in RAM."""
        return rss_bytes(self.daemons[number].pid)

    def descriptors(self, number: int) -> int:
        return len(list(Path(f"/proc/{self.daemons[number].pid}/fd").iterdir()))

    def cpu_s(self, number: int) -> float:
        """Seconds of CPU so far, of the daemon and all below it that is there now, all threads."""
        pid = self.daemons[number].pid
        return sum(_cpu_s(one) for one in (pid, *below(pid)))

    def wire_bytes(self, number: int) -> tuple[int, int]:
        """Received and sent by the host's ``eth0`` so far, with Ethernet's headers."""
        lines = Path(f"/proc/{self.daemons[number].pid}/net/dev").read_text().splitlines()
        (words,) = [line.split(":")[1].split() for line in lines if line.strip().startswith("eth0:")]
        return int(words[0]), int(words[8])


def why_not_settled(members: Sequence[str], told: Sequence[dict[str, Any]]) -> str:
    """Of these nodes, by their status: empty when each follows the same leader in the same term, has applied what that
    one has committed, names the same members and voters, as many as there should be, and is connected with all others
    and holds them for alive."""
    leading = [one for one in told if one.get("role") == "leader"]
    if not leading:
        return f"nobody of {members} leads"
    leads = leading[0]["leader"], leading[0]["term"]
    for node, one in zip(members, told, strict=True):
        if not one["joined"]:
            return f"{node} is no member"
        if (one["leader"], one["term"]) != leads:
            return f"{node} follows {one['leader']} in term {one['term']}"
        if one["applied"] < leading[0]["committed"]:
            return f"{node} has applied {one['applied']} of {leading[0]['committed']} entries"
        if sorted(other["id"] for other in one["nodes"]) != sorted(members):
            return f"{node} names these members: {[other['id'] for other in one['nodes']]}"
        wrong = [other for other in one["nodes"] if not (other["connected"] and other["state"] == "alive")]
        if wrong:
            return f"{node} says {[(other['id'], other['state'], other['connected']) for other in wrong]}"
        if one["voters"] != told[0]["voters"] or len(one["voters"]) != wanted_voters(len(members)):
            return f"{node} names these voters: {one['voters']}"
    return ""


def _cpu_s(pid: int) -> float:
    """By the process's own clock (clock_getcpuclockid(3)): to the nanosecond, with threads that have ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0  # it has ended
