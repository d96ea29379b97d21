"""Raft with real disks and a real clock, and messages that travel within one process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from abi.errors import AbiError, UsageError
from abid import raft_store
from abid.cluster import consensus
from abid.cluster.consensus import Broken, Consensus, NotLeader, Superseded
from abid.core.cluster import commands
from abid.core.cluster.facts import Facts, Result
from abid.core.raft.configuration import Configuration
from abid.core.raft.messages import Entry, Kind, Message, Snapshot
from abid.raft_store import RaftStore
from tests.daemon.steady_loop import SteadyLoop

T = TypeVar("T")
WAIT_S = 20.0


class Cluster:
    """Members by number, as many as were founded together; ``cut`` are those whose messages get lost."""

    def __init__(self, loop: SteadyLoop, folder: Path, count: int) -> None:
        self.loop, self.folder = loop, folder
        self.members: dict[int, Consensus] = {}
        self.stores: dict[int, RaftStore] = {}
        self.cut: set[int] = set()
        self.failures: list[tuple[int, Exception]] = []
        self.serial = 0
        self.changed = asyncio.Event()
        begin = Snapshot(1, 1, Configuration(voters=frozenset(range(1, count + 1))), Facts(cluster="c").encoded())
        for number in range(1, count + 1):
            store = RaftStore(self.path(number))
            store.load()
            store.compact(begin, lambda error: None)
            store.close()
            self.start(number)

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.sqlite"

    def start(self, number: int) -> None:
        store = self.stores[number] = RaftStore(self.path(number))
        stored = store.load()
        lots = random.Random(number).randint
        member = Consensus(
            self.loop, store, stored, number, lots, self.send, list, self.changed.set, lambda: None,
            lambda error: self._on_failure(number, error),
        )  # fmt: skip
        self.members[number] = member
        member.start()

    def stop(self, number: int) -> None:
        self.members.pop(number).close()
        self.stores.pop(number).close()

    def _on_failure(self, number: int, error: Exception) -> None:
        self.failures.append((number, error))
        self.changed.set()

    def send(self, message: Message) -> None:
        if not {message.sender, message.receiver} & self.cut and message.receiver in self.members:
            self.loop.call_soon(self._arrive, message)

    def _arrive(self, message: Message) -> None:
        if message.receiver in self.members:
            self.members[message.receiver].on_message(message)

    async def leader(self) -> Consensus:
        def found() -> Consensus | None:
            leaders = [m for n, m in self.members.items() if m.is_leader and n not in self.cut]
            return leaders[0] if len(leaders) == 1 else None

        return await self.eventually(found)

    async def eventually(self, found: Callable[[], T | None]) -> T:
        """Looked at whenever something has changed somewhere."""
        async with asyncio.timeout(WAIT_S):
            while (thing := found()) is None:
                self.changed.clear()
                await self.changed.wait()
        return thing

    async def claim(self, member: Consensus, name: str) -> Result:
        self.serial += 1
        command = commands.ClaimName(origin=99, serial=self.serial, at_ms=0, name=name, owner="me")
        return await asked(self.loop, lambda told: member.propose(command, told))


async def asked(loop: asyncio.AbstractEventLoop, ask: Callable[[consensus.Told], None]) -> Result:
    future: asyncio.Future[Result] = loop.create_future()

    def told(result: Result | AbiError) -> None:
        if isinstance(result, AbiError):
            future.set_exception(result)
        else:
            future.set_result(result)

    ask(told)
    async with asyncio.timeout(WAIT_S):
        return await future


@contextlib.contextmanager
def running(folder: Path, count: int) -> Iterator[tuple[Callable[[Awaitable[None]], None], Cluster]]:
    loop = SteadyLoop()
    cluster = Cluster(loop, folder, count)
    try:
        yield loop.run_until_complete, cluster
    finally:
        for number in list(cluster.members):
            cluster.stop(number)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_one_is_elected_and_what_it_is_told_holds_everywhere_and_after_a_restart(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        for number in range(10):
            assert (await cluster.claim(leader, f"n{number}")).value == number + 1
        follower = next(m for m in cluster.members.values() if not m.is_leader)
        await cluster.eventually(lambda: all(len(m.facts.names) == 10 for m in cluster.members.values()) or None)
        with pytest.raises(NotLeader) as refused:
            await cluster.claim(follower, "more")
        assert refused.value.leader == leader.raft.number
        before = {number: member.raft.hard_state for number, member in cluster.members.items()}
        for number in before:
            cluster.stop(number)
        for number in before:
            cluster.start(number)
            started = cluster.members[number].raft.hard_state
            assert (started.term, started.vote) == (before[number].term, before[number].vote)
            assert len(cluster.members[number].facts.names) == 10, "what was committed was stored, and is applied"
        again = await cluster.leader()
        assert again.raft.term > before[1].term
        assert (await cluster.claim(again, "n0")).value == 1

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_a_leader_without_a_majority_answers_nobody_and_another_takes_over(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        old = await cluster.leader()
        await cluster.claim(old, "before")
        cluster.cut.add(old.raft.number)
        lost = asyncio.ensure_future(cluster.claim(old, "lost"))
        read = asyncio.ensure_future(asked(cluster.loop, old.read))
        new = await cluster.leader()
        assert new.raft.term > old.raft.term
        assert not (await cluster.claim(new, "after")).refused
        cluster.cut.clear()
        for answer in (lost, read):
            with pytest.raises(AbiError):
                await answer
        await cluster.eventually(lambda: True if "after" in old.facts.names else None)
        assert set(old.facts.names) == {"before", "after"}

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_a_read_sees_all_that_was_answered_before_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        for number in range(20):
            await cluster.claim(leader, f"n{number}")
            await asked(cluster.loop, leader.read)
            assert len(leader.facts.names) == number + 1

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_a_long_log_becomes_a_snapshot_and_who_was_away_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consensus, "LOG_ENTRIES_MAX", 20)
    monkeypatch.setattr(consensus, "LOG_ENTRIES_KEPT", 5)

    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        away = next(number for number in cluster.members if number != leader.raft.number)
        cluster.stop(away)
        for number in range(60):
            await cluster.claim(leader, f"n{number}")
        assert leader.raft.log.begin > 30
        cluster.start(away)
        await cluster.eventually(lambda: True if len(cluster.members[away].facts.names) == 60 else None)
        cluster.stop(away)
        cluster.start(away)
        assert len(cluster.members[away].facts.names) == 60

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_a_disk_that_fails_ends_the_member_before_it_promises_anything(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        number = leader.raft.number
        await cluster.claim(leader, "before")
        with sqlite3.connect(cluster.path(number)) as spoiler:
            spoiler.execute("DROP TABLE entries")
        with pytest.raises(AbiError):
            await cluster.claim(leader, "lost")
        assert [failed for failed, _ in cluster.failures] == [number]
        cluster.cut.add(number)
        assert "before" in (await cluster.leader()).facts.names

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_a_lone_member_agrees_with_itself(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        assert not (await cluster.claim(leader, "n")).refused
        assert leader.raft.vote == leader.raft.number == leader.leader

    with running(tmp_path, 1) as (run, cluster):
        run(story(cluster))


def test_a_slow_disk_does_not_look_like_a_dead_leader(tmp_path: Path) -> None:
    """Ticks and heartbeats go on while something is being stored for two election timeouts."""

    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        await cluster.claim(leader, "before")
        term, stored = leader.raft.term, threading.Event()
        timer = cluster.loop.call_later(1.5, stored.set)

        def slow(_: sqlite3.Connection) -> None:
            stored.wait(WAIT_S)

        cluster.stores[leader.raft.number]._work.put(raft_store._Work(slow, lambda _: None))
        assert not (await cluster.claim(leader, "slowly")).refused
        assert stored.is_set(), "the leader's own disk counts for nothing before it has written"
        assert (leader.is_leader, leader.raft.term) == (True, term)
        timer.cancel()

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_nobody_speaks_of_a_term_before_it_is_stored(tmp_path: Path) -> None:
    """Killed meanwhile, it would be taken for one whose disk was restored: the others remember its term."""

    async def story(cluster: Cluster) -> None:
        await cluster.leader()
        follower = next(m for m in cluster.members.values() if not m.is_leader)
        number, stored, said = follower.raft.number, threading.Event(), asyncio.Queue[Message]()
        cluster.cut.update(cluster.members)
        follower._send = said.put_nowait

        def slow(_: sqlite3.Connection) -> None:
            stored.wait(WAIT_S)

        cluster.stores[number]._work.put(raft_store._Work(slow, lambda _: None))
        heartbeat = Message(Kind.HEARTBEAT, follower.leader, number, term=follower.raft.term + 1)
        for _ in range(2):
            follower.on_message(heartbeat)
        assert follower.raft.term == heartbeat.term
        assert said.empty()
        stored.set()
        async with asyncio.timeout(WAIT_S):
            while (await said.get()).kind != Kind.HEARTBEAT_ANSWER:
                pass  # what was being stored before is answered first

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def strange(cluster: Cluster) -> list[str]:
    """What went wrong in the loop where nobody caught it; noted from now on."""
    seen: list[str] = []
    cluster.loop.set_exception_handler(lambda _, context: seen.append(repr(context)))
    return seen


def test_an_entry_of_a_newer_release_ends_each_member_that_meets_it_and_nothing_else(tmp_path: Path) -> None:
    """Also after a restart, until abi is upgraded: it is neither guessed nor passed over."""

    async def story(cluster: Cluster) -> None:
        seen = strange(cluster)
        leader = await cluster.leader()
        await cluster.claim(leader, "before")
        await cluster.eventually(
            lambda: True if all("before" in member.facts.names for member in cluster.members.values()) else None
        )
        leader.raft.propose(msgspec.msgpack.encode(["of-release-2", 1, 2, 3]))
        waits = asyncio.ensure_future(cluster.claim(leader, "after"))
        await cluster.eventually(lambda: True if len(cluster.failures) == 3 else None)
        with pytest.raises(Superseded, match="cannot be applied"):
            await waits
        for round_ in range(2):
            assert sorted(number for number, _ in cluster.failures) == [1, 2, 3]
            for _, error in cluster.failures:
                assert isinstance(error, Broken)
                assert error.hint == "upgrade abi on this host"
                assert re.search(r"entry \d+ of the cluster's log cannot be applied by abi", error.message)
            assert all(set(member.facts.names) == {"before"} for member in cluster.members.values())
            for number in list(cluster.members):
                cluster.stop(number)
            cluster.failures.clear()
            if round_ == 0:
                for number in (1, 2, 3):
                    cluster.start(number)
                assert cluster.failures == [], "nobody is told before the start has ended"
                await cluster.eventually(lambda: True if len(cluster.failures) == 3 else None)
        assert seen == []

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_a_snapshot_that_is_not_readable_says_so(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.stop(1)
        stored = RaftStore(cluster.path(1))
        stored.load()
        stored.compact(Snapshot(2, 1, Configuration(voters=frozenset({1})), b"\xc1"), lambda _: None)
        stored.close()
        with pytest.raises(Broken, match="the snapshot at entry 2 of the cluster's log cannot be applied") as caught:
            cluster.start(1)
        assert caught.value.hint == "upgrade abi on this host"
        cluster.stores.pop(1).close()

    with running(tmp_path, 1) as (run, cluster):
        run(story(cluster))


def test_what_no_log_may_hold_enters_none(tmp_path: Path) -> None:
    """Neither from here nor, past those who check it, from another member."""

    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        await cluster.claim(leader, "before")
        number, last = leader.raft.number, leader.raft.log.last_index
        with pytest.raises(UsageError):
            await cluster.claim(leader, "n" * commands.BYTES_MAX)
        other = next(n for n in cluster.members if n != number)
        entry = Entry(0, 0, b"\xc1")
        for kind in (Kind.PROPOSE, Kind.READ, Kind.READ_ANSWER, Kind.TIMEOUT_NOW):
            leader.on_message(Message(kind, other, number, entries=(entry,), read=b"1"))
        assert (leader.raft.log.last_index, leader.is_leader) == (last, True)
        assert not (await cluster.claim(leader, "after")).refused

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_who_waits_for_its_disk_for_too_long_is_silent_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader leads no more, another is elected, and no heartbeat is answered in between; nobody is lost by it."""

    async def story(cluster: Cluster) -> None:
        old = await cluster.leader()
        await cluster.claim(old, "before")
        number, written, said = old.raft.number, threading.Event(), list[Message]()
        send = cluster.send

        def listen(message: Message) -> None:
            if message.sender == number and old.trouble:
                said.append(message)
            send(message)

        for member in cluster.members.values():
            member._send = listen

        def hang(_: sqlite3.Connection) -> None:
            written.wait(WAIT_S)

        cluster.stores[number]._work.put(raft_store._Work(hang, lambda _: None))
        monkeypatch.setattr(consensus, "SILENT_AFTER_S", 0.3)
        told = [asyncio.ensure_future(cluster.claim(old, "lost")), asyncio.ensure_future(asked(cluster.loop, old.read))]
        for answer in told:
            with pytest.raises(Superseded, match="disk keeps it from taking part: a write has not ended"):
                await answer
        monkeypatch.setattr(consensus, "SILENT_AFTER_S", WAIT_S)
        assert (old.is_leader, old.leader) == (False, 0)
        new = await cluster.leader()
        assert new is not old
        for name in ("one", "two"):
            assert not (await cluster.claim(new, name)).refused
        await cluster.eventually(lambda: True if old.leader == new.raft.number else None)  # it can be asked
        assert (said, old.raft.role.value) == ([], "follower")
        written.set()
        await cluster.eventually(lambda: True if {"one", "two"} <= set(old.facts.names) else None)
        assert (old.trouble, new.is_leader, cluster.failures) == ("", True, [])

    with running(tmp_path, 3) as (run, cluster):
        run(story(cluster))


def test_who_stood_still_itself_does_not_take_its_disk_for_stuck(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        written = threading.Event()
        cluster.stores[1]._work.put(raft_store._Work(lambda _: written.wait(WAIT_S), lambda _: None))
        claim = asyncio.ensure_future(cluster.claim(leader, "name"))
        while not leader._storing:  # noqa: ASYNC110 - in one of the next turns
            await asyncio.sleep(0)
        cluster.loop.stand_still(1000 * consensus.SILENT_AFTER_S)
        await asyncio.sleep(0)
        assert leader.trouble == ""
        written.set()
        assert not (await claim).refused

    with running(tmp_path, 1) as (run, cluster):
        run(story(cluster))


def test_a_full_disk_is_a_disk_that_hangs_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft_store, "AGAIN_S", 0.05)

    async def story(cluster: Cluster) -> None:
        leader = await cluster.leader()
        await cluster.claim(leader, "before")
        store, found = cluster.stores[1], list[sqlite3.Connection]()
        store._work.put(raft_store._Work(fill(found), lambda _: None))
        command = commands.ClaimName(origin=98, serial=1, at_ms=0, name="n" * 7_000, owner="o")
        monkeypatch.setattr(consensus, "SILENT_AFTER_S", 0.2)
        with pytest.raises(Superseded, match="disk keeps it from taking part"):
            await asked(cluster.loop, lambda told: leader.propose(command, told))
        monkeypatch.setattr(consensus, "SILENT_AFTER_S", WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while "database or disk is full" not in leader.trouble:  # noqa: ASYNC110 - its writer says it, in no event
                await asyncio.sleep(0.01)
        with pytest.raises(NotLeader):
            await cluster.claim(leader, "after")
        found[0].execute("PRAGMA max_page_count=1000000")
        await cluster.eventually(lambda: True if leader.is_leader and not leader.trouble else None)
        assert not (await cluster.claim(leader, "after")).refused
        assert cluster.failures == []

    def fill(found: list[sqlite3.Connection]) -> Callable[[sqlite3.Connection], None]:
        def write(database: sqlite3.Connection) -> None:
            found.append(database)
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count={pages}")

        return write

    with running(tmp_path, 1) as (run, cluster):
        run(story(cluster))
