"""What a person is told who waits for a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from abi_cli import asking

NODES = [{"id": "a", "connected": True}, {"id": "b", "connected": False}, {"id": "c", "connected": False}]
LED = {"joined": True, "leader": "b", "voters": ["a", "b", "c"], "nodes": NODES}


@pytest.mark.parametrize(
    ("op", "status", "said"),
    [
        ("cluster-join", {"joined": False}, "waiting for a member of the cluster"),
        ("cluster-init", {"joined": False}, "waiting for the daemon"),
        ("cluster-token", LED, "waiting for node b, which leads the cluster"),
        (
            "cluster-leave", {**LED, "leader": None},
            "waiting for a leader: 2 of the cluster's 3 voters must be up, and this host knows of 1",
        ),
        ("network-register", LED, "waiting for whoever is there to answer"),
    ],
)  # fmt: skip
def test_what_is_waited_for(op: str, status: dict[str, Any], said: str) -> None:
    assert asking._what_for(op, status) == said
