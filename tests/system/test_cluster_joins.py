"""`abi cluster join` while the cluster has other worries, or while the host that joins is killed."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from abi import exits
from tests.system.clusters import CONFIG, Host, Hosts, await_status, leader_of, refused, status, token_of
from tests.system.harness import Daemon

IMPATIENT = CONFIG + "request_timeout_ms = 1500\n"
DIES_WHEN_LET_IN = """
import os
from abid.cluster import credentials
credentials.store_member = lambda *words: os._exit(9)
"""
DIES_WHEN_ASKING = """
import os
from abid.cluster import joining
class Dying(joining.Question):
    def on_secured(self, link):
        super().on_secured(link)
        if self._cluster is not None:
            link._loop.call_soon(os._exit, 9)
joining.Question = Dying
"""


def newcomer(hosts: Hosts, **options: Any) -> Daemon:
    made = Host(cpus=1, **{"config": CONFIG, **options})
    hosts.daemons.append(made)
    return made


def joined(host: Daemon, token: str) -> Any:
    """What a program sees that asks once."""
    done = host.run("abi", "cluster", "join", "--json", env={"ABI_JOIN_TOKEN": token})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15])
def test_a_join_during_an_election_is_one_that_takes_longer(hosts: Hosts, after_s: float) -> None:
    """Whoever leads is killed just before, or while, it decides; the token is by another member, and has one use."""
    members = hosts.cluster(3)
    led = leader_of(members)
    others = [host for host in members if host is not led]
    new = newcomer(hosts)
    token = token_of(others[0])
    if after_s:
        joins = new.open("abi", "cluster", "join", "--json", env=new.environment | {"ABI_JOIN_TOKEN": token})
        time.sleep(after_s)  # what it has come to by then differs, and must not matter
        led.kill(signal.SIGKILL)
        try:
            assert joins.wait() == 0, joins.err
        finally:
            joins.close()
    else:
        led.kill(signal.SIGKILL)
        joined(new, token)
    led.wait()
    told = await_status(new, lambda told: told["leader"] and len(told["nodes"]) == 4, "it is the fourth")
    assert (told["number"], len({node["id"] for node in told["nodes"]})) == (4, 4)


@pytest.mark.parametrize("is_known", [True, False])
def test_without_a_majority_a_join_says_so_when_its_time_is_over(hosts: Hosts, is_known: bool) -> None:
    """Whether whoever is asked knows it, or takes itself for the leader still."""
    members = hosts.cluster(3)
    led = leader_of(members)
    new = newcomer(hosts, config=IMPATIENT)
    token = token_of(led)
    for host in members:
        if host is not led:
            host.kill(signal.SIGKILL)
    if is_known:
        await_status(led, lambda told: not told["leader"], "nobody leads")
    began = time.monotonic()
    done = new.run("abi", "cluster", "join", "--json", env={"ABI_JOIN_TOKEN": token})
    took_s = time.monotonic() - began
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["code"]) == (exits.UNREACHABLE, "unavailable")
    assert error["message"].startswith("no member has let this host in within 1.5 s")
    assert "with the same token" in error["hint"]
    assert took_s >= 1.5
    assert not status(new)["joined"]


def test_a_member_with_little_patience_says_that_nobody_leads_and_counts_it(hosts: Hosts) -> None:
    members = hosts.cluster(3)
    led = leader_of(members)
    new = newcomer(hosts, config=CONFIG + "request_timeout_ms = 4000\n")
    token = token_of(led)
    led.config_file.write_text(CONFIG + "request_timeout_ms = 500\n")
    led.ask("reload")
    for host in members:
        if host is not led:
            host.kill(signal.SIGKILL)
    error = refused(new, "abi", "cluster", "join", ABI_JOIN_TOKEN=token)
    assert error["code"] == "unavailable"
    assert "the cluster did not answer within 0.5 s" in error["message"]
    told = status(led)["refused"]
    assert told["unavailable"] >= 1
    assert not {"internal", "silent"} & set(told)


@pytest.mark.parametrize("dies", [DIES_WHEN_LET_IN, DIES_WHEN_ASKING], ids=["when let in", "when asking"])
def test_a_host_that_is_killed_while_it_joins_comes_in_by_the_same_token(hosts: Hosts, dies: str) -> None:
    (one,) = hosts.cluster(1)
    new = newcomer(hosts, before=dies)
    token, node = token_of(one), status(new)["node"]
    assert new.run("abi", "cluster", "join", "--json", env={"ABI_JOIN_TOKEN": token}).returncode != 0
    assert new.wait() == 9
    if dies is DIES_WHEN_LET_IN:
        assert [each["id"] for each in status(one)["nodes"]].count(node) == 1, "the cluster has let it in"
    new._before = ""
    new.start()
    assert not status(new)["joined"]
    (thief,) = hosts.add()
    if dies is DIES_WHEN_LET_IN:
        assert refused(thief, "abi", "cluster", "join", ABI_JOIN_TOKEN=token)["code"] == "wrong_token"
    told = joined(new, token)
    assert (told["node"], told["number"], len(told["nodes"])) == (node, 2, 2)
    assert refused(thief, "abi", "cluster", "join", ABI_JOIN_TOKEN=token)["code"] == "wrong_token", "it had one use"
    told = await_status(one, lambda told: all(each["connected"] for each in told["nodes"]), "both are there")
    assert len(told["nodes"]) == 2
    assert not (new.state_dir / "cluster" / "join.key").exists()
