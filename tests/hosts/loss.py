"""One-way loss: packets from one address that are dropped without a word where they arrive.

By nftables where that is installed, else by a filter of tc, which comes with ip: a classic BPF program on ingress.
"""

from __future__ import annotations

import shutil
import socket

from tests.hosts.kernel import tell

_TABLE = [
    "add table inet abi",
    "add chain inet abi arrives { type filter hook input priority 0; policy accept; }",
]
_SHOT, _GO_ON = 2, 0xFFFFFFFF  # linux/pkt_cls.h: TC_ACT_SHOT, TC_ACT_UNSPEC


class Nft:
    """Of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._enter = ("ip", "netns", "exec", namespace)
        tell(*self._enter, "nft", "-f", "-", lines=_TABLE)

    def set(self, sources: set[str]) -> None:
        """Drop what comes from these, and nothing else."""
        rules = [f"add rule inet abi arrives ip saddr {source} drop" for source in sorted(sources)]
        tell(*self._enter, "nft", "-f", "-", lines=["flush chain inet abi arrives", *rules])


class Tc:
    """Of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._tc = ("tc", "-n", namespace)

    def set(self, sources: set[str]) -> None:
        """Drop what comes from these, and nothing else."""
        if "clsact" in tell(*self._tc, "qdisc", "show", "dev", "eth0"):
            tell(*self._tc, "qdisc", "del", "dev", "eth0", "clsact")
        if sources:
            tell(*self._tc, "qdisc", "add", "dev", "eth0", "clsact")
            add = ("filter", "add", "dev", "eth0", "ingress", "protocol", "all", "bpf", "da", "bytecode")
            tell(*self._tc, *add, _program(sources))


def _program(sources: set[str]) -> str:
    """Classic BPF on an Ethernet frame: IPv4 from one of these is shot."""
    count = len(sources)
    program = [(0x28, 0, 0, 12), (0x15, 0, count + 1, 0x0800), (0x20, 0, 0, 26)]
    for place, source in enumerate(sorted(sources)):
        number = int.from_bytes(socket.inet_aton(source), "big")
        program.append((0x15, count - place, 0, number))
    program += [(0x06, 0, 0, _GO_ON), (0x06, 0, 0, _SHOT)]
    return ",".join([str(len(program)), *(f"{a} {b} {c} {d}" for a, b, c, d in program)])


def loss_in(namespace: str) -> Nft | Tc:
    return Nft(namespace) if shutil.which("nft") else Tc(namespace)
