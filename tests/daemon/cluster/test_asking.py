"""Asking whoever leads: what is waited for, what is tried again and how often, and what ends it at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from abi.errors import AbiError, NodeUnreachable, Timeout
from abid.cluster.asking import NOT_LEADER, Asking, NoLeader
from abid.cluster.breakers import BreakerOpen
from abid.cluster.consensus import Consensus, NotLeader, Superseded
from abid.cluster.reach import Reach
from abid.cluster.refusal import PeerRefused
from abid.cluster.requests import Body, PeerSaidNo
from abid.core.cluster import commands
from abid.core.cluster.facts import Applied, Facts, Result
from abid.core.cluster.facts import Member as Known
from abid.core.raft.configuration import Configuration
from tests.daemon.cluster import hosts
from tests.daemon.cluster.virtual_time import VirtualTime

WELL: Body = {"refused": "", "told": "", "value": 7}
LONG_S = 20.0


def run(story: Coroutine[Any, Any, None]) -> None:
    hosts.run(story, VirtualTime)


class Cluster:
    """What one host sees of it: who leads, and what becomes of each question, in order (``ends``)."""

    number = 1
    trouble = over = ""

    def __init__(self) -> None:
        self.raft = self
        self.term, self.leader = 1, 2
        self.is_leader = False
        self.ends: list[AbiError | Callable[[], object] | None] = []
        self.asked: list[tuple[str, bytes]] = []
        self.proposed: list[Any] = []
        self.facts = Facts()
        self.configuration = Configuration()

    async def ask(self, node: str, verb: str, body: Body, timeout_s: float) -> Body:
        self.asked.append((node, body["command"]))
        end = self.ends.pop(0) if self.ends else None
        if isinstance(end, AbiError):
            raise end
        if end is not None:
            end()
            await asyncio.get_running_loop().create_future()
        return WELL

    def heard(self, nodes: list[str]) -> int:
        return len(nodes) - 1

    def propose(self, command: Any, told: Callable[[Result | AbiError], None]) -> None:
        self.proposed.append(command)
        end = self.ends.pop(0) if self.ends else None
        if isinstance(end, AbiError):
            told(end)
        elif end is None:
            told(Result(value=8))


def asking(cluster: Cluster, timeout_s: float = LONG_S, retries: int = 3) -> Asking:
    """One that hardly pauses."""
    nodes = {1: "itself", 2: "leader", 3: "another"}
    return Asking(
        asyncio.get_running_loop(), cast(Consensus, cluster), cast(Reach, cluster), nodes.get,
        lambda low, high: low / 10, 0, lambda: timeout_s, lambda: retries,
    )  # fmt: skip


async def claim(one: Asking) -> Result:
    return await one.command(commands.ClaimName, name="n", owner="o")


LOST = [NodeUnreachable("not there"), PeerRefused("busy"), PeerSaidNo("too many", code="busy")]


@pytest.mark.parametrize(("nodes", "said"), [(("a", "b", "c"), "this host hears 2 of 3 members"), ((), "a majority")])
def test_who_finds_no_leader_is_told_how_many_are_heard(nodes: tuple[str, ...], said: str) -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.leader = 0
        cluster.facts.members = {number: Known(number, node, "", (), 0) for number, node in enumerate(nodes, 1)}
        with pytest.raises(NoLeader) as caught:
            await claim(asking(cluster, timeout_s=0.02))
        assert caught.value.hint.startswith(said)

    run(tell())


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("lost", LOST, ids=lambda one: type(one).__name__)
def test_a_leader_that_is_not_reached_is_asked_so_many_times_again(lost: AbiError, retries: int) -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.ends = [type(lost)(lost.message, code=lost.code) for _ in range(9)]
        with pytest.raises(type(lost), match=lost.message) as caught:
            await claim(asking(cluster, retries=retries))
        assert len(cluster.asked) == retries + 1
        assert (f"asked {retries + 1} times" in str(caught.value)) == (retries > 0)
        assert len(set(cluster.asked)) == 1, "the same request each time, so that it has its effect once"

    run(tell())


@pytest.mark.parametrize("lost", LOST, ids=lambda one: type(one).__name__)
def test_one_that_is_reached_the_last_time_answers(lost: AbiError) -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.ends = [lost] * 3
        assert (await claim(asking(cluster))).value == 7

    run(tell())


FINAL = [Timeout("too late"), BreakerOpen("left alone"), PeerSaidNo("never", code="denied")]


@pytest.mark.parametrize("final", FINAL, ids=lambda one: type(one).__name__)
def test_what_is_final_is_not_tried_again(final: AbiError) -> None:
    """A leader that was asked and did not answer has used up the time: with what is left of it none is asked again."""

    async def tell() -> None:
        cluster = Cluster()

        async def ask(node: str, verb: str, body: Body, timeout_s: float) -> Body:
            cluster.asked.append((node, b""))
            if isinstance(final, Timeout):
                await asyncio.sleep(timeout_s)
            raise final

        cluster.ask = ask  # type: ignore[method-assign]
        with pytest.raises(type(final), match=final.message):
            await claim(asking(cluster))
        assert len(cluster.asked) == 1

    run(tell())


def test_each_leader_is_tried_so_many_times() -> None:
    async def tell() -> None:
        cluster = Cluster()
        one = asking(cluster, retries=2)

        def elect() -> None:
            cluster.term, cluster.leader = cluster.term + 1, 3
            one.on_change()

        failure = NodeUnreachable("not there")
        cluster.ends = [failure, elect, failure, failure, elect, *[failure] * 99]
        with pytest.raises(NodeUnreachable):
            await claim(one)
        assert [node for node, _ in cluster.asked] == ["leader"] * 2 + ["another"] * (3 + 3)

    run(tell())


def test_an_election_is_no_failure() -> None:
    """However often it is said, and with no retries at all, it is waited for as long as there is time."""

    async def tell() -> None:
        cluster = Cluster()
        cluster.leader = 0
        one = asking(cluster, retries=0)
        waiting = asyncio.ensure_future(claim(one))
        await asyncio.sleep(0.05)
        assert not cluster.asked
        cluster.ends = [PeerSaidNo("I lead no more", code=NOT_LEADER) for _ in range(9)]
        cluster.leader, cluster.term = 3, 2
        assert (await waiting).value == 7
        assert len(cluster.asked) == 10

    run(tell())


def test_whoever_is_elected_is_asked_at_once() -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.leader = 0
        one = asking(cluster)
        one._draw = lambda low, high: LONG_S
        waiting = asyncio.ensure_future(claim(one))
        await asyncio.sleep(0)
        cluster.leader, cluster.term = 3, 2
        one.on_change()
        async with asyncio.timeout(LONG_S / 4):
            assert (await waiting).value == 7

    run(tell())


def test_an_answer_is_waited_for_only_while_nobody_else_leads() -> None:
    async def tell() -> None:
        cluster = Cluster()
        one = asking(cluster)

        def elect() -> None:
            cluster.leader, cluster.term = 3, 2
            one.on_change()
            one.on_change()
            cluster.term = 3
            one.on_change()

        cluster.ends = [lambda: asyncio.get_running_loop().call_soon(elect)]
        async with asyncio.timeout(LONG_S / 4):
            assert (await claim(one)).value == 7
        assert [node for node, _ in cluster.asked] == ["leader", "another"]
        assert len({body for _, body in cluster.asked}) == 1

    run(tell())


def test_nothing_else_that_changes_disturbs_a_question() -> None:
    async def tell() -> None:
        cluster = Cluster()
        one = asking(cluster, timeout_s=0.2)
        cluster.ends = [one.on_change]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await claim(one)
        assert len(cluster.asked) == 1

    run(tell())


def test_who_leads_asks_itself_and_says_when_no_majority_agrees() -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.is_leader, cluster.leader = True, 1
        one = asking(cluster, timeout_s=0.1)
        assert (await claim(one)).value == 8
        cluster.ends = [lambda: None]
        with pytest.raises(NoLeader, match=r"within 0\.1 s: what was asked was not agreed on") as caught:
            await claim(one)
        assert caught.value.code == "unavailable"
        assert not cluster.asked

    run(tell())


@pytest.mark.parametrize("why", [NotLeader(0), Superseded("another host leads now")])
def test_what_a_leader_proposed_and_lost_is_asked_of_the_next(why: AbiError) -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.is_leader, cluster.leader = True, 1
        cluster.ends = [why, why]
        assert (await claim(asking(cluster))).value == 8
        assert len({(command.origin, command.serial) for command in cluster.proposed}) == 1

    run(tell())


def test_nobody_waits_for_a_member_that_is_over_nor_for_the_only_voter_that_cannot_lead() -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.leader = 0
        one = asking(cluster)
        cluster.trouble, cluster.configuration = "its disk is full", Configuration(frozenset({1}))
        with pytest.raises(NoLeader, match="its disk is full, and no other host votes"):
            await claim(one)
        cluster.configuration = Configuration(frozenset({1, 2, 3}))
        waiting = asyncio.ensure_future(claim(one))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "another may lead"
        cluster.over = "its disk failed"
        with pytest.raises(NoLeader, match="it is not known what came of this: its disk failed"):
            await waiting

    run(tell())


def test_nobody_leads_until_time_is_over() -> None:
    async def tell() -> None:
        cluster = Cluster()
        cluster.leader = 0
        with pytest.raises(NoLeader, match="no host leads the cluster just now"):
            await claim(asking(cluster, timeout_s=0.05))

    run(tell())


def test_the_wait_for_what_was_asked_before_counts() -> None:
    """One at a time; but none may take longer than it may take."""

    async def tell() -> None:
        cluster = Cluster()
        cluster.leader = 0
        one = asking(cluster, timeout_s=0.2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        ends = await asyncio.gather(*(claim(one) for _ in range(5)), return_exceptions=True)
        assert [type(end) for end in ends] == [NoLeader] * 5
        assert loop.time() - began == pytest.approx(0.2)
        cluster.leader = 2
        assert (await claim(one)).value == 7

    run(tell())


# --- serials ----------------------------------------------------------------------------------------------------------


async def serial_of_next(one: Asking, cluster: Cluster) -> int:
    await claim(one)
    return int(commands.decode(cluster.asked[-1][1]).serial)


def test_each_request_has_a_serial_above_all_that_this_host_is_known_to_have_asked() -> None:
    async def tell() -> None:
        cluster = Cluster()
        one = asking(cluster)
        first = await serial_of_next(one, cluster)
        assert await serial_of_next(one, cluster) == first + 1
        cluster.facts.applied = {1: Applied(first + 40, Result()), 2: Applied(first + 90, Result())}
        assert await serial_of_next(one, cluster) == first + 41

    run(tell())


def test_two_lives_with_the_same_incarnation_have_other_serials() -> None:
    async def tell() -> None:
        cluster = Cluster()
        lots = random.Random(1)
        lives = [Asking(
            asyncio.get_running_loop(), cast(Consensus, cluster), cast(Reach, cluster), {2: "leader"}.get,
            lots.uniform, 7 << 32, lambda: LONG_S, lambda: 3,
        ) for _ in range(2)]  # fmt: skip
        serials = [await serial_of_next(one, cluster) for one in lives]
        assert abs(serials[0] - serials[1]) >= 1 << 20
        assert [serial >> 32 for serial in serials] == [7, 7]

    run(tell())


def test_whose_disk_was_put_back_is_refused_once_and_then_goes_on() -> None:
    """Nobody told it: its own facts are as old as its disk."""

    async def tell() -> None:
        cluster = Cluster()
        cluster.is_leader, cluster.leader = True, 1
        now = Facts(applied={1: Applied(5 << 32, Result(value="of another life"))})
        cluster.propose = lambda command, told: told(now.apply(command))  # type: ignore[method-assign]
        one = asking(cluster)
        refused = await claim(one)
        assert (refused.refused, refused.told) == (
            "stale",
            "this request was overtaken by a later one of the same host; ask again",
        )
        assert (await claim(one)).value == 1
        assert now.names["n"].owner == "o"

    run(tell())
