"""Who left the cluster has a certificate that is good for weeks: it lets nobody in, and has no say."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from abi.errors import AbiError, ProtocolError
from abid.cluster import credentials, former
from abid.cluster.admission import Admission, Denied
from abid.cluster.asking import NOT_LEADER, Asking
from abid.cluster.consensus import Consensus, NotLeader
from abid.cluster.member import Member
from abid.cluster.peer import Peer
from abid.cluster.reach import Reach
from abid.cluster.refusal import Code, PeerRefused
from abid.cluster.requests import Body
from abid.core.cluster import commands
from abid.core.cluster.facts import Facts, Result
from abid.core.cluster.facts import Member as Known
from abid.core.raft.configuration import Configuration
from tests.daemon.cluster.hosts import WAIT_S, Ca, Host, hosts, run
from tests.seed.members import Making
from tests.system.harness import eventually

A, B = "0000000a", "0000000b"


def facts_of(*nodes: str) -> Facts:
    """Of members 1, 2 and so on; number 9 was another, and 10 is next."""
    members = {number: Known(number, node, f"host {node}", (), 0) for number, node in enumerate(nodes, 1)}
    return Facts("c", 1, 10, members, past={9: "gone"})


class Leader:
    """Which hears of what was agreed on when it asks (``read``)."""

    def __init__(self, facts: Facts) -> None:
        self.raft, self.leader, self.number, self.term = self, 1, 1, 1
        self.facts = facts
        self.news: Callable[[], None] = lambda: None
        self.proposed: list[Any] = []

    def read(self, told: Callable[[Result], None]) -> None:
        self.news()
        told(Result())

    def propose(self, command: Any, told: Callable[[Result], None]) -> None:
        self.proposed.append(command)
        told(Result(value=1))

    def asking(self) -> Asking:
        return Asking(
            asyncio.get_running_loop(), cast(Consensus, self), cast(Reach, self), lambda _: None, lambda low, _: low, 0,
            lambda: 1.0, lambda: 0,
        )  # fmt: skip


def command(kind: Any, origin: int, **words: Any) -> Body:
    return {"command": commands.encode(kind(origin=origin, serial=1, at_ms=0, **words))}


def claim(origin: int) -> Body:
    return command(commands.ClaimName, origin, name="n", owner="o")


def peer(node: str) -> Peer:
    return cast(Peer, SimpleNamespace(node=node))


@pytest.mark.parametrize(("node", "origin"), [("gone", 9), ("gone", 11), ("stranger", 10), (B, 1), (B, 7)])
def test_nobody_asks_but_a_member_and_for_itself(node: str, origin: int) -> None:
    async def story() -> None:
        leader = Leader(facts_of(A, B))
        with pytest.raises(AbiError) as caught:
            await leader.asking().on_command(peer(node), claim(origin))
        assert (caught.value.code, leader.proposed) == ("left", [])

    run(story())


def test_a_member_asks_and_founds_nothing() -> None:
    async def story() -> None:
        leader = Leader(facts_of(A, B))
        assert (await leader.asking().on_command(peer(B), claim(2)))["value"] == 1
        found = command(commands.Found, 2, cluster="c", incarnation=7, number=2, node=B, name="b", addresses=())
        with pytest.raises(AbiError) as caught:
            await leader.asking().on_command(peer(B), found)
        assert (caught.value.code, len(leader.proposed)) == ("denied", 1)

    run(story())


def test_one_that_was_admitted_just_now_is_known_as_soon_as_the_leader_knows_all() -> None:
    async def story() -> None:
        leader = Leader(facts_of(A))
        leader.news = lambda: leader.facts.members.update(facts_of(A, B).members)
        assert (await leader.asking().on_command(peer(B), claim(2)))["value"] == 1

        def lost() -> None:
            raise NotLeader(0)

        leader.news = lost
        with pytest.raises(AbiError) as caught:
            await leader.asking().on_command(peer("another"), claim(3))
        assert caught.value.code == NOT_LEADER, "who leads no more cannot know"

    run(story())


def test_what_was_agreed_on_is_read_by_members_only() -> None:
    async def story() -> None:
        leader = Leader(facts_of(A, B))
        words = {"what": "name", "words": {"name": "n"}}
        assert (await leader.asking().on_read(peer(B), words))["refused"] == "unknown"
        with pytest.raises(AbiError):
            await leader.asking().on_read(peer("gone"), words)

    run(story())


def test_a_certificate_is_renewed_for_a_member_only(tmp_path: Path) -> None:
    ca = Ca(tmp_path)

    async def story() -> None:
        leader = Leader(facts_of(A, B))
        leader.facts.cluster = ca.authority.cluster
        consensus = SimpleNamespace(facts=leader.facts, is_leader=True)
        host = SimpleNamespace(consensus=consensus, authority=ca.authority, asking=leader.asking())
        admission = Admission(cast(Member, host))
        _, request = credentials.next_request(tmp_path, ca.member(B).subject)
        assert (await admission.on_renew_own(peer(B), {"request": request}))["certificate"]
        with pytest.raises(AbiError):
            await admission.on_renew_own(peer("0000000c"), {"request": request})
        with pytest.raises(Denied):
            admission.certify("0000000c", request)

    run(story())


@pytest.mark.parametrize(
    ("number", "node", "is_heard"),
    [
        (2, B, True),
        (9, "gone", False),
        (10, "new", True),  # it may have joined while we were away, and lead us
        (12, B, True),  # readmitted, and we have not heard of that
        (10, "gone", False),
        (7, "new", False),  # a number of the past that nobody knows any more
    ],
)
def test_whose_words_of_raft_are_heard(number: int, node: str, is_heard: bool) -> None:
    consensus = SimpleNamespace(facts=facts_of(A, B), configuration=Configuration(frozenset({1, 2})))
    assert former.may_speak_as(cast(Member, SimpleNamespace(consensus=consensus)), number, node) is is_heard


def test_a_voter_that_left_is_heard_while_raft_counts_it_and_nobody_in_its_name() -> None:
    consensus = SimpleNamespace(facts=facts_of(A, B), configuration=Configuration(frozenset({1, 9})))
    host = cast(Member, SimpleNamespace(consensus=consensus))
    assert former.may_speak_as(host, 9, "gone")
    for number, node in ((9, B), (1, "gone"), (2, A)):
        with pytest.raises(ProtocolError, match=f"node {node} speaks for member {number}"):
            former.may_speak_as(host, number, node)


def test_who_left_is_greeted_by_nobody_and_sent_away_where_it_was_greeted(tmp_path: Path) -> None:
    async def story() -> None:
        ca = Ca(tmp_path)
        async with hosts(ca.member(A), ca.member(B)) as (a, b):
            await b.peers.dial([a.address], WAIT_S)
            a.left.add(B)
            a.peers.end_outdated(0.0)
            await a.until_told("closed", B, False)
            await b.until(lambda: not b.peers.connected)
            with pytest.raises(PeerRefused) as caught:
                await b.peers.dial([a.address], WAIT_S)
            assert (caught.value.code, a.peers.refusals[Code.LEFT]) == (Code.LEFT, 2)

    run(story())


def test_a_host_that_left_is_out_and_comes_back(tmp_path: Path) -> None:
    """With what it had, which was copied before; and then with a token, as the host that it was."""
    making = Making()
    try:
        members = making.cluster(3)
        led_by = members[0].until(lambda told: told["leader"], "somebody leads")["leader"]
        leader = next(one for one in members if one.node == led_by)
        gone = next(one for one in members if one is not leader)
        shutil.copytree(gone.state_dir / "cluster", tmp_path / "copy")
        copied = credentials.load(tmp_path / "copy")
        assert copied is not None
        gone.ask("cluster-leave")
        stay = [one for one in members if one is not gone]
        for one in stay:
            one.until(lambda told: len(told["nodes"]) == 2, "it has heard of it")
        places = [leader.sees(one)["address"] for one in stay]

        async def story() -> None:
            host = Host(copied)
            for place in places:
                with pytest.raises(PeerRefused) as caught:
                    await host.peers.dial([place], WAIT_S)
                assert caught.value.code == Code.LEFT
            host.peers.close()

        run(story())
        gone.ask("cluster-join", token=leader.ask("cluster-token")["token"])
        for one in members:
            one.until(lambda told: all(node["connected"] for node in told["nodes"]) and len(told["nodes"]) == 3, "all")
        assert eventually(lambda: gone.ask("name-claim", name="n")["epoch"], "it is asked for") == 1
    finally:
        making.close()
