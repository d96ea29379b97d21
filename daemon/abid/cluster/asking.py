"""Asking the cluster: whoever leads just now, for as long as it takes, and with effect once.

1. A request is given its origin and serial before it is first sent.
2. The leader may take it and be lost before its answer comes. So it is asked again, of the next leader, as the same.
3. The facts remember each origin's last serial: what was taken twice has its effect once (``facts.apply``).

So a host asks for one thing at a time, and what it asks for next has a higher serial.

A host whose whole disk was put back to an earlier day begins a life anew that it had before. Serials of both lives
differ by lot, so that it is not told what came of another request, and where its own facts are not as old as its disk
they say above which serial it has to go. Else its first request is refused as overtaken, which says so, too.

How long, and how often. All of it ends after ``network.request_timeout_ms``, in which two things may happen:

- *Nobody leads*, or who was asked leads no more. That is no failure: an election takes up to a second. It is waited
  for, the time being the only limit, and whoever is elected is asked at once. A question that is under way when another
  leads is given up for the same reason.
- *Who leads was not reached*, or the connection broke. It is asked again after pauses with full jitter
  (``abi.backoff``), ``network.max_retries`` times; another leader, or the same in another term, so many times anew.
  A circuit breaker that is open ends it at once, and so does an answer that did not come in time: no time is left then.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from abi.backoff import Backoff, Tries
from abi.errors import AbiError, Timeout
from abid.cluster.breakers import FAILURES, BreakerOpen
from abid.cluster.consensus import Consensus, NotLeader, Superseded
from abid.cluster.peer import Peer
from abid.cluster.reach import Reach
from abid.cluster.refusal import Code
from abid.cluster.requests import BUSY, Body, PeerSaidNo
from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import STALE, Result

T = TypeVar("T")

AGAIN_S: Final = (0.05, 0.15)
"""Until it is looked again who leads, by lot; a change is noticed at once."""
LIVES, COUNTED_BITS = 1 << 12, 20
"""What a life's serials begin with, by lot, and the bits that are left for counting, in the 32 that each life has."""
COMMAND, READ = "command", "read"
TOKENS: Final = "tokens"
"""What is read: the tokens that can be used."""
NOT_LEADER: Final = NotLeader.code
"""The code by which a member says that it cannot, and that another may."""


class NoLeader(AbiError):
    """Nobody could be asked in time. It may or may not have come to pass, if it was heard at all."""

    code = "unavailable"


class Refused(AbiError):
    """The cluster did not do it; ``code`` says why."""


def done(result: Result) -> Result:
    """Raises Refused for what was not done."""
    if result.refused:
        raise Refused(result.told, code=result.refused)
    return result


@dataclass(frozen=True)
class Question(Generic[T]):
    """For whoever leads. Of another member it is asked by ``verb`` and ``body``, and ``read`` takes the answer apart;
    where we lead, ``here`` answers it. It may be answered twice, if the first answer is lost, and with effect once."""

    verb: str
    body: Body
    read: Callable[[Body], T]
    here: Callable[[], Awaitable[T]]


class Asking:
    """``serial`` is the first of this life of the daemon, above all of earlier ones. ``timeout_s`` and ``retries`` are
    asked for each request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        consensus: Consensus,
        reach: Reach,
        node_of: Callable[[int], str | None],
        draw: Callable[[float, float], float],
        serial: int,
        timeout_s: Callable[[], float],
        retries: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._consensus = consensus
        self._reach = reach
        self._node_of = node_of
        self._draw = draw
        self._serial = serial + (int(draw(0, LIVES)) << COUNTED_BITS)
        self._timeout_s = timeout_s
        self._retries = retries
        self._turn = asyncio.Lock()
        self._led = self._leads
        self._while_led: set[asyncio.Timeout] = set()
        """What is waited for only as long as nobody else leads."""

    def on_change(self) -> None:
        """Perhaps somebody else leads, or nobody does."""
        if self._led != self._leads:
            self._led = self._leads
            waited_for, self._while_led = self._while_led, set()
            for limit in waited_for:
                if not limit.expired():
                    limit.reschedule(self._loop.time())

    @property
    def _leads(self) -> tuple[int, int]:
        """Who, 0 for nobody, and in which term."""
        return self._consensus.leader, self._consensus.raft.term

    async def command(self, kind: Callable[..., AnyCommand], **words: Any) -> Result:
        """Have it done. A result that is refused is returned, not raised.

        Raises NoLeader; NodeUnreachable, PeerRefused or Timeout when there is a leader, and asking it failed.
        """
        limit_s = self._timeout_s()
        ends = self._loop.time() + limit_s
        try:
            async with asyncio.timeout_at(ends):
                await self._turn.acquire()
        except TimeoutError:
            raise self._no_leader(AbiError("what this host asked for before has no answer yet"), limit_s) from None
        try:
            number = self._consensus.raft.number
            known = self._consensus.facts.applied.get(number)
            self._serial = max(self._serial, known.serial if known else 0) + 1
            command = kind(origin=number, serial=self._serial, at_ms=time.time_ns() // 1_000_000, **words)
            body = {"command": commands.encode(command)}
            result = await self._ask(Question(COMMAND, body, _result, lambda: self.propose(command)), ends, limit_s)
            if result.refused == STALE:
                self._serial = max(self._serial, int(result.value or 0))
            return result
        finally:
            self._turn.release()

    async def read(self, what: str, **words: Any) -> Result:
        """Have the leader look, when its facts are as fresh as this moment. Raises what ``command`` does."""
        body = {"what": what, "words": words}
        return await self.ask(Question(READ, body, _result, lambda: self.look(what, words)))

    async def ask(self, question: Question[T], limit_s: float = math.inf) -> T:
        """Have whoever leads answer it, within ``limit_s`` and what any request may take. Raises what ``command`` does,
        PeerSaidNo, and what ``here`` raises, but for NotLeader and Superseded."""
        limit_s = min(limit_s, self._timeout_s())
        return await self._ask(question, self._loop.time() + limit_s, limit_s)

    async def _ask(self, question: Question[T], ends: float, limit_s: float) -> T:
        asked, tries = (0, 0), self._tries(ends)
        why: AbiError = NotLeader(0)
        while (left := ends - self._loop.time()) > 0:
            self._check_that_another_may_lead()
            if self._consensus.leader and asked != self._leads:
                asked, tries = self._leads, self._tries(ends)
            pause_s = self._draw(*AGAIN_S)
            try:
                return await self._ask_leader(question, left)
            except (NotLeader, Superseded) as error:
                why = error
            except (*FAILURES, PeerSaidNo) as error:
                wait_ns = tries.on_failure(error, self._now_ns())
                if wait_ns is None:
                    raise _counted(error, tries) from None
                pause_s, why = wait_ns / 1e9, error
            except TimeoutError:  # another leads, or the time is over
                pause_s, why = 0.0, Superseded("what was asked was not agreed on by then")
            with contextlib.suppress(TimeoutError):
                await self._unless_another_leads(asyncio.sleep(pause_s))
        raise self._no_leader(why, limit_s)

    def _check_that_another_may_lead(self) -> None:
        """Raises NoLeader where this member is over, and where only this host votes and its disk keeps it from leading:
        there is nothing to wait for."""
        consensus = self._consensus
        if consensus.over:
            raise NoLeader(f"it is not known what came of this: {consensus.over}")
        if consensus.trouble and consensus.configuration.all_voters == frozenset({consensus.raft.number}):
            hint = "see to its disk; the rest goes by itself"
            raise NoLeader(f"{consensus.trouble}, and no other host votes", hint=hint)

    async def _ask_leader(self, question: Question[T], left: float) -> T:
        """Raises TimeoutError when another leads now."""
        consensus = self._consensus
        if consensus.is_leader:
            return await self._unless_another_leads(question.here(), self._loop.time() + left)
        node = self._node_of(consensus.leader)
        if node is None:
            raise NotLeader(0)
        try:
            answer = await self._unless_another_leads(self._reach.ask(node, question.verb, question.body, left))
        except PeerSaidNo as error:
            if error.code == NOT_LEADER:
                raise NotLeader(0) from None
            raise
        return question.read(answer)

    async def _unless_another_leads(self, work: Awaitable[T], ends: float | None = None) -> T:
        """Raises TimeoutError when leadership has changed, or time is over, before it was done."""
        async with asyncio.timeout_at(ends) as limit:
            self._while_led.add(limit)
            try:
                return await work
            finally:
                self._while_led.discard(limit)

    def _tries(self, ends: float) -> Tries:
        now = self._loop.time()
        policy = Backoff(max_retries=self._retries(), budget_ms=max(0, int((ends - now) * 1000)))
        return Tries(policy, lambda: self._draw(0.0, 1.0), self._now_ns(), _may_pass)

    def _now_ns(self) -> int:
        return int(self._loop.time() * 1e9)

    def _no_leader(self, why: AbiError, limit_s: float) -> NoLeader:
        members = [member.node for member in self._consensus.facts.members.values()]
        heard = self._reach.heard(members) if members else 0
        here = f"this host hears {heard} of {len(members)} members, itself included; " if heard < len(members) else ""
        return NoLeader(
            f"the cluster did not answer within {limit_s:.3g} s: {self._consensus.trouble or why.message}",
            hint=f"{here}a majority of its voters has to be up: `abi network status` shows who is; where it is lost "
            "for good, `abi cluster recover` goes on without it",
        )

    # As the leader.

    async def propose(self, command: AnyCommand) -> Result:
        """Raises NotLeader and Superseded."""
        return await self._told(lambda told: self._consensus.propose(command, told))

    async def refresh(self) -> None:
        """Until the facts here are as fresh as the moment of asking. Raises NotLeader and Superseded."""
        await self._told(self._consensus.read)

    async def look(self, what: str, words: Body) -> Result:
        """Raises NotLeader, Superseded, and UsageError-like KeyError for what cannot be looked for."""
        await self.refresh()
        return LOOKS[what](self._consensus, **words)

    async def check(self, node: str, number: int = 0) -> None:
        """That a host is a member, and this one, if a number is named. Only the facts say so: who left shows the same
        certificate. A host that was admitted just now may be asked for before we have applied that.

        Raises AbiError: ``Code.LEFT``, or NOT_LEADER by who cannot know.
        """
        if not self._is_member(node, number):
            await self.refresh()
            if not self._is_member(node, number):
                who = f"member {number}" if number else "a member"
                raise AbiError(f"node {node} is not {who} any more", code=Code.LEFT, hint="it left, or was sent away")

    def _is_member(self, node: str, number: int) -> bool:
        member = self._consensus.facts.of_node(node)
        return member is not None and number in (0, member.number)

    async def on_command(self, peer: Peer, body: Body) -> Body:
        """A member asks us as the leader. It speaks for itself only, and founds nothing."""
        command = commands.decode(body["command"])
        await self.check(peer.node, command.origin)
        if isinstance(command, commands.Found):
            raise AbiError("no member founds the cluster that it is in", code="denied")
        proposed = commands.proposed_at(command, time.time_ns() // 1_000_000)
        return cast("Body", msgspec.to_builtins(await self.propose(proposed)))

    async def on_read(self, peer: Peer, body: Body) -> Body:
        await self.check(peer.node)
        return cast("Body", msgspec.to_builtins(await self.look(body["what"], body["words"])))

    async def _told(self, ask: Callable[[Callable[[Result | AbiError], None]], None]) -> Result:
        future: asyncio.Future[Result] = self._loop.create_future()

        def told(result: Result | AbiError) -> None:
            if future.done():
                return
            if isinstance(result, AbiError):
                future.set_exception(result)
            else:
                future.set_result(result)

        ask(told)
        return await future


def _result(said: Body) -> Result:
    return msgspec.convert(said, Result)


def _may_pass(error: BaseException) -> bool:
    """Whether the same leader may answer a moment later, and there is time for it."""
    if isinstance(error, PeerSaidNo):
        return error.code == BUSY
    return isinstance(error, FAILURES) and not isinstance(error, BreakerOpen | Timeout)


def _counted(error: AbiError, tries: Tries) -> AbiError:
    """The same, saying how often it was tried."""
    if tries.retries:
        error.message += f" (asked {tries.retries + 1} times)"
    return error


def _name(consensus: Consensus, name: str) -> Result:
    held = consensus.facts.names.get(name)
    return Result("unknown", f"nobody holds {name!r}") if held is None else Result(value=held.owner)


def _tokens(consensus: Consensus) -> Result:
    """As JSON: those that have not ended by the clock of whoever leads, which is the cluster's."""
    now_ms = time.time_ns() // 1_000_000
    tokens = [
        {"id": identity, "uses": token.uses, "ends_ms": token.ends_ms}
        for identity, token in consensus.facts.tokens.items()
        if token.ends_ms > now_ms
    ]
    return Result(value=msgspec.json.encode(tokens).decode())


LOOKS: Final[dict[str, Callable[..., Result]]] = {"name": _name, TOKENS: _tokens}
"""What can be read, by its word."""
