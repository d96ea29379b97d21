"""Daemons on loopback that become one cluster, each with its own port, certificates and Raft on disk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from abi.errors import AbiError
from tests.system.harness import Daemon, eventually

CONFIG = '[network]\nbind = "127.0.0.1"\nport = 0\ndiscovery_enabled = false\n'
NOBODY_LEADS = ("not_leader", "unavailable", AbiError.code)
"""Just now, as a member knows that was asked to let somebody in."""


class Host(Daemon):
    """One that joins others."""

    is_member = True


class Hosts:
    """Daemons by number, from 0 on; ended with the test."""

    def __init__(self) -> None:
        self.daemons: list[Daemon] = []

    def add(self, count: int = 1, before: str = "") -> list[Daemon]:
        added: list[Daemon] = [Host(config=CONFIG, cpus=1, before=before) for _ in range(count)]
        self.daemons += added
        return added

    def cluster(self, count: int, before: str = "") -> list[Daemon]:
        """So many members, the first of which founded it; all that should vote do, and each is connected with
        every other."""
        hosts = self.add(count, before)
        assert hosts[0].ask("cluster-init")["role"] == "leader"
        if count > 1:
            token = token_of(hosts[0], uses=count - 1)
            for host in hosts[1:]:
                join(host, token)
        voters = 1 if count < 3 else 3 if count < 7 else 5
        await_status(hosts[0], lambda told: len(told["voters"]) == voters, f"{voters} of {count} vote")
        for host in hosts:
            await_status(host, lambda told: sum(n["connected"] for n in told["nodes"]) == count, "all are connected")
        return hosts


def status(host: Daemon) -> Any:
    return host.ask("network-status")


def await_status(host: Daemon, holds: Callable[[Any], Any], what: str) -> Any:
    def found() -> Any:
        told = status(host)
        return told if holds(told) else None

    return eventually(found, what)


def leader_of(hosts: Sequence[Daemon]) -> Daemon:
    """Whoever says so itself; not always the one that founded the cluster."""

    def found() -> Daemon | None:
        return next((host for host in hosts if status(host)["role"] == "leader"), None)

    return eventually(found, "one leads")  # type: ignore[no-any-return]


def noted(told: Any, code: str) -> str:
    """What the note of this code says in a status; "" without one."""
    return next((str(note["message"]) for note in told["notes"] if note["code"] == code), "")


def token_of(host: Daemon, uses: int = 1, **words: Any) -> str:
    return str(host.ask("cluster-token", uses=uses, **words)["token"])


def join(host: Daemon, token: str) -> Any:
    """Asked again while nobody leads."""

    def joined() -> Any:
        try:
            return host.ask("cluster-join", token=token)
        except AbiError as error:
            if error.code not in NOBODY_LEADS:
                raise
            return None

    return eventually(joined, "somebody leads and lets it in")


def refused(host: Daemon, *command: str, **variables: str) -> Any:
    """The error of a command that must fail."""
    done = host.run(*command, "--json", env=variables)
    assert done.returncode != 0, done.stdout
    return json.loads(done.stderr)["error"]


def listening(pid: int) -> list[str]:
    """The TCP and UDP sockets of a process, as lines of /proc/net."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = ""
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        found += [f"{table} {line}" for line in lines if line.split()[9] in inodes]
    return found
