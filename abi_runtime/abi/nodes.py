"""The nodes of the cluster, asked of the local daemon. `abi.network.NodeRegistry` is its public name."""

from __future__ import annotations

from typing import Final

import msgspec

from abi import control
from abi.errors import NetworkDisabled, ProtocolError

GONE: Final = frozenset({"dead", "stopped", "left", "other_incarnation"})
"""States of nodes that are no longer active. One that is suspect still is: it may only be slow."""


class NodeInfo(msgspec.Struct, frozen=True):
    """One node: its id, its host's name, what it has, where it is dialled, and how it is ("alive", "suspect", …). One
    that this host has not been connected with yet has said nothing of its cores, and counts as having none."""

    id: str
    cpu_cores: int
    has_gpu: bool
    name: str = ""
    address: str = ""
    state: str = "alive"


class _Node(msgspec.Struct, frozen=True):
    id: str
    cpu_cores: int | None
    has_gpu: bool | None
    name: str = ""
    address: str = ""
    state: str = "alive"

    @property
    def info(self) -> NodeInfo:
        return NodeInfo(self.id, self.cpu_cores or 0, bool(self.has_gpu), self.name, self.address, self.state)


class _Status(msgspec.Struct, frozen=True):
    """What of the daemon's answer to `network-status` is looked at here."""

    enabled: bool
    port: int
    discovery_enabled: bool
    broadcast_interval_ms: int
    nodes: list[_Node]
    configured_port: int | None = None
    """Where nobody configured one it is the default, and ``port`` the next that was free."""


class NodeRegistry:
    """The nodes of the cluster, as the daemon of this host knows them.

    The daemon discovers, with its own configuration; this is a view of it. A value given here says what the caller
    counts on: where the running daemon's differs, ValueError names both. What is not given is taken as it is. A port
    may be the one that is configured or the one that is open: where several users run a daemon each, they differ.

    Raises `DaemonUnreachable` if no daemon runs here, here and in each method.
    """

    def __init__(
        self,
        port: int | None = None,
        discovery_enabled: bool | None = None,
        broadcast_interval_ms: int | None = None,
    ) -> None:
        self._wanted: dict[str, int | bool | None] = {
            "port": port,
            "discovery_enabled": discovery_enabled,
            "broadcast_interval_ms": broadcast_interval_ms,
        }
        status = self._ask()
        self.port = status.port
        self.discovery_enabled = status.discovery_enabled
        self.broadcast_interval_ms = status.broadcast_interval_ms

    def __repr__(self) -> str:
        return (
            f"NodeRegistry(port={self.port}, discovery_enabled={self.discovery_enabled}, "
            f"broadcast_interval_ms={self.broadcast_interval_ms})"
        )

    def start_discovery(self) -> None:
        """See to it that discovery runs. The daemon has started it by itself, so this only makes sure.

        Raises `NetworkDisabled` if the daemon's network, or its discovery, is switched off.
        """
        status = self._ask()
        if not status.enabled:
            raise NetworkDisabled()
        if not status.discovery_enabled:
            raise NetworkDisabled(
                "discovery is switched off in the daemon on this host",
                hint="[network] discovery_enabled = true, or name the others: `abi network register --host HOST`",
            )

    def get_active_nodes(self) -> list[NodeInfo]:
        """The nodes that are there now, this host's among them; those that died or left are not. With the network
        switched off that is this host alone."""
        return [node.info for node in self._ask().nodes if node.state not in GONE]

    def _ask(self) -> _Status:
        with control.connect() as connection:
            answer = connection.request("network-status")
        try:
            status = msgspec.convert(answer, _Status)
        except msgspec.ValidationError as problem:
            raise ProtocolError(f"the daemon's answer to network-status cannot be read: {problem}") from None
        for name, wanted in self._wanted.items():
            has = getattr(status, name)
            if wanted is not None and wanted not in (has, status.configured_port if name == "port" else has):
                raise ValueError(
                    f"{name}={wanted!r} was asked for, but the daemon on this host runs with {name}={has!r}; "
                    f"leave it out, or change network.{name} in the daemon's configuration"
                )
        return status
