"""The seed's row "Raft consensus": three real daemons."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from abi.errors import AbiError
from abid.cluster import standing
from abid.core.raft.messages import NOBODY
from abid.raft_store import RaftStore, Stored
from tests.seed.members import QUIET, Making, Member
from tests.system.harness import eventually

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
    def agreeing() -> list[Any]:
        told = [one.json("abi", "network", "status") for one in trio.members]
        is_one = len({(one["leader"], one["term"]) for one in told}) == 1
        return told if is_one and told[0]["leader"] else []

    told = eventually(agreeing, "one leader and one term")
    assert sorted(one["role"] for one in told) == ["follower", "follower", "leader"]
    (leader,) = [one for one in told if one["role"] == "leader"]
    assert leader["node"] == leader["leader"]
    assert [set(one["voters"]) for one in told] == [{one.node for one in trio.members}] * 3


def test_kill_the_leader_and_another_leads_in_a_higher_term(trio: Trio) -> None:
    """And what is asked of the cluster meanwhile waits for it, and is done."""
    leader, term = trio.agreed()
    leader.kill()
    leader.wait()
    left = trio.others(leader)
    left[0].ask("name-claim", name=f"in term {term}", owner="o")
    assert left[1].ask("name-get", name=f"in term {term}") == {"owner": "o"}
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
    assert alone.until(lambda told: not told["leader"], "nobody leads")["role"] != "leader"
    with pytest.raises(AbiError) as caught:
        alone.ask("name-claim", name="alone")
    assert caught.value.code == "unavailable"
    assert "majority" in caught.value.hint
    alone.reload(PATIENT)
    trio.settle()
    with pytest.raises(AbiError, match="nobody holds 'alone'"):
        alone.ask("name-get", name="alone")


def test_a_restart_keeps_term_vote_and_log(trio: Trio, tmp_path: Path) -> None:
    """Of one who gave its vote: without the leader, the two that are left need each other's. When it is back nobody
    else is there, so that all it has is what it had."""
    leader, term = trio.agreed()
    leader.kill()
    leader.wait()
    other, voted = trio.others(leader)
    voted.ask("name-claim", name=f"after term {term}", owner="o")
    other.kill()
    other.wait()
    before = on_disk(voted, tmp_path / "before")
    assert before.hard_state.term > term
    assert before.hard_state.vote != NOBODY
    assert any(f"after term {term}".encode() in entry.data for entry in before.entries)
    voted.start()
    assert voted.status()["term"] == before.hard_state.term
    assert on_disk(voted, tmp_path / "after") == before


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
