"""Daemons of one cluster on loopback, asked over their own sockets as the commands do."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from abi.control import Object
from abi.wire import join_token
from tests.system.harness import Daemon, eventually, state_of

LOOPBACK = '[network]\nbind = "127.0.0.1"\n'
QUIET = "discovery_enabled = false\n"


def invented_token(*places: str) -> str:
    """One of no cluster, for a join that goes no further than to dial."""
    token = join_token.JoinToken(bytes(32), "c1a57e5000000001", "0a0b0c0d", bytes(16), places)
    return join_token.to_text(token)


class Member(Daemon):
    """``options`` are lines of the table ``[network]``."""

    is_member = True

    def __init__(self, options: str = "port = 0\n" + QUIET, before: str = "", **environment: str) -> None:
        self.node = ""
        super().__init__(config=LOOPBACK + options, cpus=1, before=before, **environment)
        self.node = str(self.status()["node"])

    def status(self) -> Object:
        return self.ask("network-status")

    def reload(self, options: str) -> None:
        self.config_file.write_text(LOOPBACK + options)
        assert not self.ask("reload")["restart"]

    def restart(self, options: str | None = None) -> None:
        """With ``options`` from now on, if there are any."""
        if self.process.poll() is None:
            self.kill()
            self.wait()
        if options is not None:
            self.config_file.write_text(LOOPBACK + options)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open."""
        self.kill(signal.SIGSTOP)
        eventually(lambda: state_of(self.pid) == "T", "it is stopped")

    def up(self) -> None:
        """Started again if it was killed, and going on if it was stopped."""
        if self.process.poll() is not None:
            self.start()
        self.kill(signal.SIGCONT)

    def until(self, holds: Callable[[Object], Any], what: str) -> Object:
        """Its status, when it is so."""

        def look() -> Object | None:
            told = self.status()
            return told if holds(told) else None

        return eventually(look, what)  # type: ignore[no-any-return]

    def sees(self, other: Member) -> Object:
        """What it says of another member now."""
        return next(one for one in self.status()["nodes"] if one["id"] == other.node)


def joined(*members: Member) -> None:
    """The first founds a cluster, and the others join it; until all that should vote do."""
    first, *others = members
    first.ask("cluster-init")
    if others:
        token = first.ask("cluster-token", uses=len(others))["token"]
        for one in others:
            one.ask("cluster-join", token=token)
    count = 1 if len(members) < 3 else 3
    for one in members:
        one.until(lambda told: told["leader"] and len(told["voters"]) == count, f"{count} vote")


class Making:
    """Members of a test, ended with it."""

    def __init__(self) -> None:
        self._made: list[Member] = []

    def add(self, count: int = 1, options: str = "port = 0\n" + QUIET, before: str = "") -> list[Member]:
        with ThreadPoolExecutor(count) as pool:
            added = list(pool.map(lambda _: Member(options, before), range(count)))
        self._made += added
        return added

    def cluster(self, count: int, options: str = "port = 0\n" + QUIET, before: str = "") -> list[Member]:
        added = self.add(count, options, before)
        joined(*added)
        return added

    def close(self) -> None:
        for one in self._made:
            one.close()


def elapsed(call: Callable[[], object]) -> float:
    """Seconds."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def listening(pid: int) -> set[tuple[str, int]]:
    """Protocol and port of the sockets that a process has bound, or connected, in its network namespace."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            target = os.readlink(link)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            is_open = table.startswith("udp") or words[3] == "0A"
            if words[9] in inodes and is_open:
                found.add((table[:3], int(words[1].rpartition(":")[2], 16)))
    return found
