"""The seed's row "Raft consensus": three real daemons."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from abi.errors import AbiError
from abid.cluster import standing
from abid.raft_store import RaftStore, Stored
from tests.seed.members import QUIET, Making, Member

PATIENT = f"port = 0\n{QUIET}"


class Trio:
    """Three voters."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    def settle(self) -> None:
        """All are up and say the same."""
        down = [one for one in self.members if one.process.poll() is not None]
        with ThreadPoolExecutor() as pool:
            list(pool.map(Member.start, down))
        for one in self.members:
            one.until(lambda told: told["leader"] and all(node["connected"] for node in told["nodes"]), "it follows")
        self.agreed()

    def agreed(self, *members: Member) -> tuple[Member, int]:
        """Who leads and in which term, when these say the same; all of them, if none are named."""
        asked = list(members) or self.members

        def same(_: object) -> bool:
            told = [one.status() for one in asked]
            return len({(one["leader"], one["term"]) for one in told}) == 1 and bool(told[0]["leader"])

        told = asked[0].until(same, "all of them name one leader, in one term")
        return next(one for one in self.members if one.node == told["leader"]), int(told["term"])

    def others(self, *without: Member) -> list[Member]:
        return [one for one in self.members if one not in without]


@pytest.fixture(scope="module")
def made() -> Iterator[Trio]:
    making = Making()
    try:
        yield Trio(making.cluster(3, PATIENT))
    finally:
        making.close()


@pytest.fixture
def trio(made: Trio) -> Trio:
    made.settle()
    return made


def test_three_daemons_show_one_leader_and_one_term(trio: Trio) -> None:
    leader, term = trio.agreed()
    told = [one.json("abi", "network", "status") for one in trio.members]
    assert {(one["leader"], one["term"]) for one in told} == {(leader.node, term)}
    assert sorted(one["role"] for one in told) == ["follower", "follower", "leader"]
    assert [set(one["voters"]) for one in told] == [{one.node for one in trio.members}] * 3


def test_kill_the_leader_and_another_leads_in_a_higher_term(trio: Trio) -> None:
    """And what is asked of the cluster meanwhile waits for it, and is done."""
    leader, term = trio.agreed()
    leader.kill()
    leader.wait()
    left = trio.others(leader)
    left[0].ask("name-claim", name=f"after term {term}", owner="o")
    assert left[1].ask("name-get", name=f"after term {term}") == {"owner": "o"}
    for one in left:
        one.until(lambda told: told["leader"] not in (None, leader.node), "another leads")
    next_leader, next_term = trio.agreed(*left)
    assert next_leader in left
    assert next_term > term


def test_one_of_three_alone_refuses_cluster_writes(trio: Trio) -> None:
    leader, _ = trio.agreed()
    first, alone = trio.others(leader)
    alone.reload(f"{PATIENT}request_timeout_ms = 400\n")
    for one in (leader, first):
        one.kill()
        one.wait()
    with pytest.raises(AbiError) as caught:
        alone.ask("name-claim", name="alone")
    assert caught.value.code == "unavailable"
    assert "majority" in caught.value.hint
    assert alone.until(lambda told: not told["leader"], "nobody leads")["role"] != "leader"
    alone.reload(PATIENT)
    trio.settle()
    with pytest.raises(AbiError, match="nobody holds 'alone'"):
        alone.ask("name-get", name="alone")


def test_a_restart_keeps_term_vote_and_log(trio: Trio, tmp_path: Path) -> None:
    """Of one who gave its vote in this term: so the leader is killed first."""
    leader, _ = trio.agreed()
    leader.kill()
    leader.wait()
    left = trio.others(leader)
    for one in left:
        one.until(lambda told: told["leader"] not in (None, leader.node), "another leads")
    elected, term = trio.agreed(*left)
    trio.settle()
    (voted,) = [one for one in left if one is not elected]
    voted.ask("name-claim", name=f"in term {term}")
    before = on_disk(voted, tmp_path / "before")
    assert (before.hard_state.term, before.hard_state.vote) == (term, elected.status()["number"])
    assert any(f"in term {term}".encode() in entry.data for entry in before.entries)
    voted.start()
    voted.until(lambda told: told["leader"] == elected.node, "it follows as before")
    assert voted.status()["term"] == term
    assert voted.ask("name-get", name=f"in term {term}")["owner"]
    after = on_disk(voted, tmp_path / "after")
    assert (after.hard_state.term, after.hard_state.vote) == (before.hard_state.term, before.hard_state.vote)
    assert after.snapshot == before.snapshot
    assert after.entries[: len(before.entries)] == before.entries


def on_disk(member: Member, folder: Path) -> Stored:
    """What a member that is killed has stored: read from a copy."""
    member.kill()
    member.wait()
    place = member.state_dir / "cluster"
    path = standing.load(place).store_path(place)
    folder.mkdir()
    for part in place.glob(f"{path.name}*"):
        shutil.copy(part, folder)
    store = RaftStore(folder / path.name)
    stored = store.load()
    store.close()
    return stored
