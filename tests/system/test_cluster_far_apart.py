"""Hosts with a slow link between them wait longer for a word of their leader."""

from __future__ import annotations

import pytest

from abid.cluster.ticking import TICK_S
from tests.hosts import kernel
from tests.hosts.daemon import HostDaemon
from tests.hosts.hosts import Hosts
from tests.system.clusters import await_status, join, token_of

pytestmark = pytest.mark.skipif(bool(kernel.why_not()), reason=kernel.why_not())

DELAY_MS = 30
CONFIG = "[network]\ndiscovery_enabled = false\n"
QUICK_DISK = """
from abid.core.raft.patience import Patience
Patience.note_write = lambda self, took_s: None
"""
"""As far as it is known: writes on a busy machine would stretch the time, too."""


def test_a_slow_link_stretches_the_time_to_an_election() -> None:
    """A tenth of it is a round trip to the farthest voter; ordinary hosts stay at the shortest."""
    with Hosts(3) as hosts:
        hosts[2].slow(delay_ms=DELAY_MS)
        members = [HostDaemon(host, cpus=1, config=CONFIG, before=QUICK_DISK) for host in hosts]
        try:
            first = members[0]
            assert first.ask("cluster-init")["election_ms"] == [440, 770]
            token = token_of(first, uses=2)
            for member in members[1:]:
                join(member, token)
            await_status(first, lambda told: len(told["voters"]) == len(members), "all vote")
            shortest = 10 * 2 * DELAY_MS
            for member in members:
                told = await_status(member, lambda told: told["election_ms"][0] >= shortest, "it is patient")
                assert told["election_ms"][1] == 2 * told["election_ms"][0] - TICK_S * 1000
        finally:
            for member in members:
                member.close()
