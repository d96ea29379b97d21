"""What hosts for tests need of this machine, and the words for what is missing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

COMMAND_S = 30
"""Bounds every command of the harness."""
_OURS = re.compile(r"abi-(\d+)-\d+-\w+")


class CommandFailed(Exception):
    """With what the command said."""


def tell(*command: str, lines: Sequence[str] = ()) -> str:
    """Run a command to its end, ``lines`` on its standard input; what it printed. Raises CommandFailed."""
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)} {list(lines)}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str:
    """Why there can be no hosts for tests on this machine; empty: there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "the command ip is missing (iproute2)"
    probe = f"abi-{os.getpid()}-0-probe"
    try:
        tell("ip", "netns", "add", probe)
        try:
            tell("ip", "-n", probe, "-b", "-", lines=["link add type bridge", "link add type veth"])
        finally:
            tell("ip", "netns", "del", probe)
    except CommandFailed as error:
        return f"this kernel or container makes no network namespaces, bridges or veths: {error}"
    return ""


def why_no_loss() -> str:
    """Why packets cannot be lost one way only; empty: they can."""
    if shutil.which("nft") or shutil.which("tc"):
        return ""
    return "neither nft (nftables) nor tc (iproute2) is there"


def in_words() -> str:
    """Whether there can be hosts here, in one line."""
    missing = why_not()
    if missing:
        return f"hosts for tests: none, {missing}"
    loss = why_no_loss()
    return f"hosts for tests: yes; packets lost one way: {f'no, {loss}' if loss else 'yes'}"


def namespaces() -> list[str]:
    return [line.split()[0] for line in tell("ip", "netns", "list").splitlines() if line]


def processes_in(namespace: str) -> list[int]:
    return [int(pid) for pid in tell("ip", "netns", "pids", namespace).split()]


def end_all_in(namespace: str, within_s: float = COMMAND_S) -> None:
    """SIGKILL, until nobody is left: what is killed may be about to fork."""
    deadline = time.monotonic() + within_s
    while pids := [pid for pid in processes_in(namespace) if not _is_zombie(pid)]:
        assert time.monotonic() < deadline, f"these processes in {namespace} do not end: {pids}"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def remove_leftovers() -> list[str]:
    """Those of runs that are dead: their names carry the pid of who made them. What was removed."""
    removed = []
    for name in namespaces():
        named = _OURS.fullmatch(name)
        if named and not Path(f"/proc/{named[1]}").exists():
            with contextlib.suppress(CommandFailed):  # another run removes it at the same time
                end_all_in(name)
                tell("ip", "netns", "del", name)
                removed.append(name)
    return removed
