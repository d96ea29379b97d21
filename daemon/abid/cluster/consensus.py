"""Raft on this host: its clock, its disk, its messages, and the facts that the log comes to.

The rules (``core.raft``) hand out one output at a time, and it is carried out in the order that they ask for:

1. what is to be stored goes to the store's thread; the loop goes on, ticks and messages are taken in meanwhile
2. it is on the disk: the messages of this output leave, since some of them promise just that
3. what is committed is applied to the facts, and whoever proposed it here is told
4. the rules are told that it is done, and give the next

Heartbeats and their answers promise nothing about a disk and do not wait for it: an fsync of half a second must not
look like a dead leader (thesis, 10.2.1).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from abi.errors import AbiError
from abid.cluster.ticking import EARLY_S, Ticking
from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import Facts, Result
from abid.core.raft.configuration import Configuration, ConfigurationError
from abid.core.raft.interface import Dropped, Output, Role, Settings, Stranger
from abid.core.raft.log import Log
from abid.core.raft.messages import FROM_LEADERS, Entry, EntryKind, Kind, Message, Snapshot
from abid.core.raft.raft import Raft
from abid.raft_store import RaftStore, Stored

log = logging.getLogger(__name__)

SETTINGS: Final = Settings(election_ticks=4, heartbeat_ticks=1)
"""A heartbeat each 100 ms; an election after 400 to 700 ms without one."""
LOG_ENTRIES_MAX: Final = 2_000
"""Applied entries that the log keeps before they become a snapshot: some hundred KiB, and replayed in a moment."""
LOG_ENTRIES_KEPT: Final = 500
"""For followers that are only a little behind: they need no snapshot."""

Told = Callable[[Result | AbiError], None]


class NotLeader(AbiError):
    """Only the leader can do this. ``leader`` is its number, 0 if none is known."""

    def __init__(self, leader: int) -> None:
        super().__init__("another host leads the cluster" if leader else "no host leads the cluster just now")
        self.leader = leader


class Superseded(AbiError):
    """What was proposed may or may not have come to pass: leadership was lost before that was known. Ask again."""


class Consensus:
    """One member. ``on_change`` is called when role, leader, configuration or facts have changed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: RaftStore,
        stored: Stored,
        number: int,
        draw: Callable[[int, int], int],
        send: Callable[[Message], None],
        on_change: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._send = send
        self._on_change = on_change
        self._on_failure = on_failure
        self.facts = Facts.decoded(stored.snapshot.data)
        self._applied = stored.snapshot
        """The index and term up to which the facts go, and the configuration there; its data may be older."""
        before = Log(stored.snapshot.index, stored.snapshot.term, stored.entries)
        self.raft = Raft(
            number, before, stored.snapshot.configuration, stored.hard_state, draw, self._take_snapshot, SETTINGS
        )
        self._storing = False
        self._term_stored = stored.hard_state.term
        self._answered: tuple[int, int] | None = None
        """The leader and its term whose last heartbeat we answered; None: we left it out."""
        self._closed = False
        self._waiting: dict[tuple[int, int], Told] = {}
        """Who proposed what here, by origin and serial."""
        self._reads: dict[bytes, Told] = {}
        self._reads_due: list[tuple[int, bytes]] = []
        self._read_number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ticking = Ticking(self.raft, loop.time())

    # What is so.

    @property
    def is_leader(self) -> bool:
        return self.raft.role == Role.LEADER

    @property
    def leader(self) -> int:
        """Its number; 0 when none is known."""
        return self.raft.leader

    @property
    def configuration(self) -> Configuration:
        return self.raft.configuration

    @property
    def may_change(self) -> bool:
        """As the leader: whether the voters are settled, so that the next step can be proposed."""
        raft = self.raft
        return not raft.configuration.is_joint and raft.change_index <= raft.log.applied

    def caught_up(self, number: int) -> bool:
        """As the leader: whether this member's log has all that is committed."""
        return self.raft.has_caught_up(number)

    # What happens.

    def start(self) -> None:
        self._ticking = Ticking(self.raft, self._loop.time())
        self._pump()

    def close(self) -> None:
        """Nothing more is sent or told. What is being stored is stored."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._fail_all(Superseded("this daemon is ending"))

    def _tick(self) -> None:
        self._timer = None
        self._ticking.wake(self._loop.time())
        self._send_heartbeats()
        self._pump()

    def on_message(self, message: Message) -> None:
        """A peer said this, and it is who it says it is."""
        if self._closed:
            return
        is_word_of_leader = message.kind in FROM_LEADERS
        if not is_word_of_leader:
            self._ticking.catch_up(self._loop.time())
        try:
            self.raft.step(message)
        except Stranger as error:
            log.info("%s", error)
        except Dropped:
            pass  # a proposal that was passed on; who made it asks again
        if is_word_of_leader and self.raft.since_heard == 0:
            self._ticking.begin_anew(self._loop.time())
        self._send_heartbeats()
        self._pump()

    def stand(self) -> None:
        """For election, now: nobody else could."""
        self.raft.campaign()
        self._pump()

    def step_down(self) -> None:
        """As the leader, after a sleep in which others may have been elected: ask before leading on."""
        if self.is_leader:
            self.raft.become(Role.FOLLOWER, self.raft.term)
            self._pump()

    def connection_lost(self, number: int) -> None:
        """Nothing more comes from it over the connection that there was. If it led, we may be next."""
        self.raft.unreachable(number)
        self._ticking.catch_up(self._loop.time())
        self.raft.leader_lost(number)
        self._pump()

    def unreachable(self, number: int) -> None:
        """What was sent to it last may be lost."""
        self.raft.unreachable(number)

    def propose(self, command: AnyCommand, told: Told) -> None:
        """As the leader. Raises NotLeader."""
        if not self.is_leader:
            raise NotLeader(self.leader)
        try:
            self.raft.propose(commands.encode(command))
        except Dropped:
            raise NotLeader(0) from None
        key = (command.origin, command.serial)
        earlier = self._waiting.get(key)
        if earlier is not None:
            earlier(Superseded("it was asked again"))
        self._waiting[key] = told
        self._pump()

    def propose_change(self, data: bytes) -> None:
        """As the leader; what cannot be done now is not done."""
        try:
            self.raft.propose_change(data)
        except Dropped:
            return
        self._pump()

    def read(self, told: Told) -> None:
        """As the leader: be told, with an empty result, when the facts here are as fresh as this moment (thesis, 6.4).
        Raises NotLeader."""
        if not self.is_leader:
            raise NotLeader(self.leader)
        self._read_number += 1
        context = self._read_number.to_bytes(8, "big")
        self._reads[context] = told
        self.raft.read(context)
        self._pump()

    # What comes out.

    def _pump(self) -> None:
        while not self._storing and not self._closed and self.raft.has_output:
            output = self.raft.output()
            if output.snapshot is None and not output.entries and output.hard_state is None:
                self._carry_out(output)
                continue
            self._storing = True
            self._store.store(output, lambda error, output=output: self._call(self._on_stored, output, error))  # type: ignore[misc]
        self._set_timer()

    def _set_timer(self) -> None:
        """For when the rules want to hear of time next; a timer that rings before that finds nothing to do, and is set
        anew then. So the words of a leader do not set it each time."""
        next_at = self._ticking.next_at
        if self._closed or (self._timer is not None and self._timer.when() <= next_at + EARLY_S):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(next_at, self._tick)

    def _send_heartbeats(self) -> None:
        """Without waiting for the disk; mostly there is nothing else to be done. Those of a term that is not stored yet
        do wait: the others remember in which term we spoke (``recollection``), so we must, too."""
        if self.raft.term == self._term_stored:
            for message in self.raft.take_heartbeats():
                if not self._can_be_left_out(message):
                    self._send(message)

    def _can_be_left_out(self, message: Message) -> bool:
        """Every second answer to a heartbeat in which nothing was asked. A leader looks back over four whether we are
        there (check-quorum), and each answer wakes it."""
        if message.kind != Kind.HEARTBEAT_ANSWER or message.read:
            return False
        answer = message.receiver, message.term
        self._answered = None if self._answered == answer else answer
        return self._answered is None

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """From the store's thread; the loop may have ended meanwhile."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            log.debug("the loop is closed")

    def _on_stored(self, output: Output, error: Exception | None) -> None:
        self._storing = False
        if error is not None:
            # Nobody knows what is on the disk now, and all that we would say depends on it.
            if not self._closed:
                self.close()
                self._on_failure(error)
            return
        if output.hard_state is not None:
            self._term_stored = output.hard_state.term
        if not self._closed:
            self._carry_out(output)
            self._send_heartbeats()
            self._pump()

    def _carry_out(self, output: Output) -> None:
        for message in output.messages:
            self._send(message)
        if output.snapshot is not None:
            self.facts = Facts.decoded(output.snapshot.data)
            self._applied = output.snapshot
        for entry in output.committed:
            self._apply(entry)
        self.raft.done()
        self._reads_due += [(index, context) for context, index in output.reads]
        self._answer_reads()
        if output.role is not None and output.role != Role.LEADER:
            self._fail_all(Superseded("another host leads now"))
        self._compact_if_due()
        if output.committed or output.snapshot or output.role or output.leader is not None:
            self._on_change()

    def _apply(self, entry: Entry) -> None:
        configuration = self._applied.configuration
        if entry.kind == EntryKind.CHANGE:
            try:
                configuration = self.raft.apply_change(entry.data)
            except ConfigurationError as error:
                log.error("a change of the voters that cannot be: %s", error)
        elif entry.data:
            self._apply_command(entry.data)
        self._applied = Snapshot(entry.index, entry.term, configuration)

    def _apply_command(self, data: bytes) -> None:
        command = commands.decode(data)
        result = self.facts.apply(command)
        told = self._waiting.pop((command.origin, command.serial), None)
        if told is not None:
            told(result)

    def _answer_reads(self) -> None:
        applied = self.raft.log.applied
        due = [context for index, context in self._reads_due if index <= applied]
        self._reads_due = [(index, context) for index, context in self._reads_due if index > applied]
        for context in due:
            told = self._reads.pop(context, None)
            if told is not None:
                told(Result())

    def _fail_all(self, error: AbiError) -> None:
        waiting, self._waiting = self._waiting, {}
        reads, self._reads = self._reads, {}
        self._reads_due = []
        for told in [*waiting.values(), *reads.values()]:
            told(error)

    # Snapshots.

    def _take_snapshot(self) -> Snapshot:
        return msgspec.structs.replace(self._applied, data=self.facts.encoded())

    def _compact_if_due(self) -> None:
        raft_log = self.raft.log
        if raft_log.applied - raft_log.begin <= LOG_ENTRIES_MAX:
            return
        # The disk keeps no entry that its snapshot holds; memory keeps some for followers that are a little behind.
        self._store.compact(self._take_snapshot(), lambda error: self._call(self._on_compacted, error))
        raft_log.compact(raft_log.applied - LOG_ENTRIES_KEPT)

    def _on_compacted(self, error: Exception | None) -> None:
        if error is not None and not self._closed:
            self.close()
            self._on_failure(error)
