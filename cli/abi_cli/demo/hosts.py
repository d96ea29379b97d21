"""`--hosts N`: hosts that become one machine, on this machine; the one that leads is killed, and another leads.

Each host is a daemon in directories of its own, on a port of its own at 127.0.0.1. What is shown is what the command
line says to anybody: `abi cluster init`, `token`, `join`, `abi network status`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from abi_cli.bench import procs
from abi_cli.bench.own_daemon import OwnDaemon, program
from abi_cli.demo.checks import Check, nobody_left
from abi_cli.demo.show import Show

HOSTS_MAX = 20
"""Each is a daemon and its zygote, some 40 MB."""
WAIT_S = 60.0
"""For what the cluster does by itself; it fails afterwards."""
LOOK_S = 0.02
COMMAND_S = 60.0
GONE_S = 10.0
SETTINGS = {
    "ABI_NETWORK_BIND": "127.0.0.1",
    "ABI_NETWORK_PORT": "0",
    "ABI_NETWORK_DISCOVERY_ENABLED": "false",
    "ABI_WORKERS_CPUS": "1",
}


class Host:
    """One daemon of the demo."""

    def __init__(self, directory: str, number: int) -> None:
        self.name = f"host {number}"
        folder = os.path.join(directory, str(number))
        os.mkdir(folder)
        self.daemon = OwnDaemon(folder, SETTINGS)

    def ask(self, *words: str, said: str | None = None) -> Any:
        """What a command answers with --json. Raises RuntimeError with what it says instead."""
        done = subprocess.run([program("abi"), *words, "--json"], env=self.daemon.environment(), input=said or "",
                              capture_output=True, text=True, timeout=COMMAND_S, check=False)  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"abi {' '.join(words)} on {self.name}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def status(self) -> Any:
        """As the command line shows it."""
        return self.ask("network", "status")

    def until(self, holds: Callable[[Any], bool], what: str) -> Any:
        """Its status, as soon as it is so. Raises RuntimeError."""
        deadline = time.monotonic() + WAIT_S
        while not holds(told := self.status()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: not within {WAIT_S:.0f} s: {what}")
            time.sleep(LOOK_S)
        return told


class HostsDemo:
    """One run; `directory` is for all hosts."""

    def __init__(self, show: Show, directory: str, count: int) -> None:
        self._show = show
        self._directory = directory
        self._hosts = [Host(directory, number) for number in range(1, count + 1)]
        self._checks: list[Check] = []

    def run(self) -> bool:
        """Whether every check holds."""
        self._show.title(f"abi demo: {len(self._hosts)} hosts become one machine, and lose their leader")
        with self._running():
            self._found()
            self._lose_the_leader()
        left = procs.end_descendants(GONE_S)
        left += [line for line in procs.command_lines() if self._directory in line]
        self._checks.append(nobody_left(len(self._hosts), left))
        self._show.step("checks", "what must hold, as it was found")
        for check in self._checks:
            self._show.check(check)
        return all(check.holds for check in self._checks)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        try:
            for host in self._hosts:
                host.daemon.start()
            pids = ", ".join(str(host.daemon.pid) for host in self._hosts)
            self._show.step("start", f"abid start -d, on each host: processes {pids}; no port is open yet")
            yield
            self._show.step("stop", "abid stop, on each host")
        finally:
            for host in self._hosts:
                host.daemon.stop(now=True)

    def _found(self) -> None:
        first, *others = self._hosts
        begin = time.monotonic()
        told = first.ask("cluster", "init")
        self._show.step("found", f"abi cluster init, on {first.name}: cluster {told['cluster']}")
        token = first.ask("cluster", "token", "--uses", str(len(others) or 1))
        self._show.say(f"abi cluster token: {token['token'][:24]}…, for {token['uses']} hosts")
        for host in others:
            joined = host.ask("cluster", "join", said=token["token"])
            self._show.say(f"abi cluster join, on {host.name}: {len(joined['nodes'])} members")
        voters = 1 if len(self._hosts) < 3 else 3 if len(self._hosts) < 7 else 5
        told = first.until(lambda told: len(told["voters"]) == voters, f"{voters} vote")
        self._show.say(f"one cluster, {voters} of them voting, after {time.monotonic() - begin:.2f} s")
        self._table(told)
        self._checks.append(Check("all hosts are members of one cluster", len(told["nodes"]) == len(self._hosts),
                                  f"{len(told['nodes'])} of {len(self._hosts)}"))  # fmt: skip

    def _lose_the_leader(self) -> None:
        first = self._hosts[0]
        before = first.until(lambda told: told["leader"], "one leads")
        leader = next(host for host in self._hosts if host.status()["node"] == before["leader"])
        others = [host for host in self._hosts if host is not leader]
        self._show.step("kill", f"kill -9 {leader.daemon.pid}: {leader.name}, {before['leader']}, which leads in term "
                                f"{before['term']}")  # fmt: skip
        os.kill(leader.daemon.pid, signal.SIGKILL)
        begin = time.monotonic()
        if len(self._hosts) < 3:
            self._show.say("with fewer than three hosts nobody can take over; tasks would go on, facts wait")
            return
        after = others[0].until(lambda told: told["leader"] not in (None, before["leader"]), "another leads")
        seconds = time.monotonic() - begin
        self._show.say(
            f"{after['leader']} leads in term {after['term']}, as {others[0].name} saw after {seconds:.2f} s"
        )
        self._checks.append(Check("another host leads, in a higher term", after["term"] > before["term"],
                                  f"term {before['term']}, then {after['term']}"))  # fmt: skip
        last = others[-1]
        same = last.until(lambda told: _leads(told) == _leads(others[0].status()), "all that are left agree")
        self._checks.append(Check("all that are left say the same", bool(same["leader"]),
                                  f"{same['leader']} leads in term {same['term']}"))  # fmt: skip
        self._come_back(leader, before, after)

    def _come_back(self, host: Host, before: Any, after: Any) -> None:
        host.daemon.pid = 0
        host.daemon.start()
        told = host.until(lambda told: told["leader"] not in (None, told["node"]), "it follows")
        self._show.step("return", f"abid start -d, on {host.name} again: it is {told['node']} as before, and follows")
        told = self._hosts[-1].until(lambda told: all(node["state"] == "alive" for node in told["nodes"]), "all live")
        self._table(told)
        self._checks.append(Check("the killed host is back as who it was", told["term"] >= after["term"]
                                  and before["leader"] in [node["id"] for node in told["nodes"]],
                                  f"term {told['term']}"))  # fmt: skip

    def _table(self, told: Any) -> None:
        rows = [
            [
                node["id"],
                node["state"],
                "leader" if node["leader"] else "voter" if node["voter"] else "",
                node["address"],
            ]
            for node in told["nodes"]
        ]
        self._show.table(("NODE", "STATE", "ROLE", "ADDRESS"), rows)


def _leads(told: Any) -> tuple[str | None, int]:
    return told["leader"], told["term"]
