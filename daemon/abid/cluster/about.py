"""What `abi network list` says of a host, and of one that is in no cluster. Light: also such a host says this."""

from __future__ import annotations

from typing import Any

from abi.config import Config
from abi.wire.schema import UNITS
from abid import resources
from abid.gpus import NoCards


def about_this_host(config: Config) -> dict[str, Any]:
    """What others would send it work for."""
    units = round(config.number("workers.cpus") * UNITS) or resources.cpu_units()
    return {"cpu_cores": -(-units // UNITS), "has_gpu": bool(NoCards().uuids())}


def of_none(config: Config, node: str, host: str, port: int, removed: str) -> dict[str, Any]:
    """The status of a host that belongs to no cluster: it knows itself, and nobody else."""
    itself = {
        "id": node, "number": None, "name": host, **about_this_host(config), "address": "", "addresses": [],
        "state": "alive", "connected": True, "breaker": None, "voter": False, "leader": False, "joined_ms": None,
    }  # fmt: skip
    return {
        "enabled": config.boolean("network.enabled"),
        "port": port or config.integer("network.port"),
        "configured_port": config.integer("network.port"),
        "discovery_enabled": config.boolean("network.discovery_enabled"),
        "broadcast_interval_ms": config.integer("network.broadcast_interval_ms"),
        "node": node,
        "joined": False,
        "removed": removed,
        "failed": "",
        "failed_hint": "",
        "notes": [],
        "nodes": [itself],
    }


def of_one_outside(why: str, hint: str) -> dict[str, Any]:
    """What differs from that for a member that is out of its cluster: that it is one, and why it takes no part."""
    return {
        "joined": True, "failed": why, "failed_hint": hint, "cluster": "", "incarnation": 0, "number": 0, "role": "out",
        "term": 0, "leader": None, "voters": [], "election_ms": None, "applied": 0, "committed": 0,
        "certificate_ends_ms": 0, "told_removed": [], "refused": {},
    }  # fmt: skip
