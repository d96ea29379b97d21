"""Raft on this host: its clock, its disk, its messages, and the facts that the log comes to.

The rules (``core.raft``) hand out one output at a time, and it is carried out in the order that they ask for:

1. what is to be stored goes to the store's thread; the loop goes on, ticks and messages are taken in meanwhile
2. it is on the disk: the messages of this output leave, since some of them promise just that
3. what is committed is applied to the facts, and whoever proposed it here is told
4. the rules are told that it is done, and give the next

Heartbeats and their answers promise nothing about a disk and do not wait for it: an fsync of half a second must not
look like a dead leader (thesis, 10.2.1). But a leader whose disk hangs for good, or is full, would lead for ever and
agree on nothing. So who waits for a write for longer than SILENT_AFTER_S leads no more and says nothing at all, not
even that it is there, until that write has ended: others go on without it, and count on it for nothing.

What cannot go on at all is ``Broken``: nobody knows what is on the disk, or what an entry means. The member is over
then, and nothing else on this host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from abi.errors import AbiError
from abi.version import __version__
from abid.cluster.ticking import EARLY_S, TICK_S, Ticking
from abid.core.cluster import commands
from abid.core.cluster.commands import AnyCommand
from abid.core.cluster.facts import Facts, Result
from abid.core.raft.configuration import Configuration, ConfigurationError
from abid.core.raft.interface import Dropped, Output, Role, Settings, Stranger
from abid.core.raft.log import Log
from abid.core.raft.messages import FROM_LEADERS, Entry, EntryKind, Kind, Message, Snapshot
from abid.core.raft.patience import Patience
from abid.core.raft.raft import Raft
from abid.raft_store import RaftStore, Stored

log = logging.getLogger(__name__)

SETTINGS: Final = Settings(election_ticks=4, quorum_ticks=8, heartbeat_ticks=2, spares_answers=True)
"""A heartbeat each 220 ms; an election after 440 to 770 ms without one, unless ``patience`` stretches that. A
heartbeat wakes every member, and wakings are what an idle cluster costs. Connections lose nothing on the way, so one in
the shortest timeout is enough; who stands because it came late hears that the others hear their leader (pre-vote)."""
LOG_ENTRIES_MAX: Final = 2_000
"""Applied entries that the log keeps before they become a snapshot: some hundred KiB, and replayed in a moment."""
LOG_ENTRIES_KEPT: Final = 500
"""For followers that are only a little behind: they need no snapshot."""

SILENT_AFTER_S: Final = 2.0
"""For one write. A busy disk takes a fraction of it; four elections could be held meanwhile."""
LOOKS: Final = 4
"""At a write, in that time."""
HEARD: Final = frozenset(Kind) - {Kind.PROPOSE, Kind.READ, Kind.READ_ANSWER, Kind.TIMEOUT_NOW}
"""What members say to each other by Raft. What is proposed or read comes as a request (``asking``), which is checked,
and leadership is not handed over."""

Told = Callable[[Result | AbiError], None]


class NotLeader(AbiError):
    """Only the leader can do this. ``leader`` is its number, 0 if none is known. Members say so to each other; whoever
    waits for an answer is told ``unavailable`` when its time is over."""

    code = "not_leader"

    def __init__(self, leader: int) -> None:
        super().__init__("another host leads the cluster" if leader else "no host leads the cluster just now")
        self.leader = leader


class Superseded(AbiError):
    """What was proposed may or may not have come to pass: leadership was lost before that was known. Ask again."""

    code = NotLeader.code


class Broken(AbiError):
    """This host can be no member as it is, and trying again mends nothing."""


class Consensus:
    """One member. ``round_trips_s`` says how far away the other voters are; ``on_change`` is called when role, leader,
    configuration or facts have changed; ``on_beat`` when a heartbeat has come or gone; ``on_failure`` once, with a
    Broken, after ``start``, when this member is over. Raises Broken for a snapshot that is not readable."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: RaftStore,
        stored: Stored,
        number: int,
        draw: Callable[[int, int], int],
        send: Callable[[Message], None],
        round_trips_s: Callable[[], Sequence[float]],
        on_change: Callable[[], None],
        on_beat: Callable[[], None],
        on_failure: Callable[[AbiError], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._send = send
        self._round_trips_s = round_trips_s
        self._on_change = on_change
        self._on_beat = on_beat
        self._on_failure = on_failure
        self.facts = _facts_of(stored.snapshot)
        self._applied = stored.snapshot
        """The index and term up to which the facts go, and the configuration there; its data may be older."""
        before = Log(stored.snapshot.index, stored.snapshot.term, stored.entries)
        self.raft = Raft(
            number, before, stored.snapshot.configuration, stored.hard_state, draw, self._take_snapshot, SETTINGS
        )
        self._patience = Patience(SETTINGS, TICK_S)
        self._storing = False
        self._storing_since = 0.0
        self._slow: asyncio.TimerHandle | None = None
        """Rings when what is being stored takes too long."""
        self._is_silent = False
        self._term_stored = stored.hard_state.term
        self.over = ""
        """Why this member is over, if it is."""
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

    @property
    def election_ms(self) -> tuple[int, int]:
        """The shortest and the longest time without a word of a leader after which a voter stands for election, in
        milliseconds, as things are here."""
        ticks = self.raft.settings.election_ticks
        return round(ticks * TICK_S * 1000), round((2 * ticks - 1) * TICK_S * 1000)

    @property
    def trouble(self) -> str:
        """Why this member says nothing just now, if so."""
        why = self._store.waits or f"a write has not ended for more than {SILENT_AFTER_S:g} s"
        return f"this host's disk keeps it from taking part: {why}" if self._is_silent else ""

    def notes(self) -> list[dict[str, Any]]:
        """For `abi network status`."""
        hint = "see to its disk; the rest goes by itself"
        return [{"code": "disk", "message": self.trouble, "hint": hint}] if self.trouble else []

    # What happens.

    def start(self) -> None:
        self._ticking = Ticking(self.raft, self._loop.time())
        self._pump()

    def close(self, why: str = "this host does not take part any more") -> None:
        """Nothing more is sent or told. What is being stored is stored."""
        self.over = self.over or why
        for timer in (self._timer, self._slow):
            if timer is not None:
                timer.cancel()
        self._fail_all(Superseded(why))

    def _break(self, error: Broken) -> None:
        """It is over."""
        if not self.over:
            self._loop.call_soon(self._on_failure, error)  # not within ``start``: its caller knows no member yet
            self.close(error.message)

    def _tick(self) -> None:
        self._timer = None
        self._ticking.wake(self._loop.time())
        self._send_heartbeats()
        self._pump()
        if self.is_leader:
            self._on_beat()

    def on_message(self, message: Message) -> None:
        """A peer said this, and it is who it says it is."""
        if self.over or message.kind not in HEARD:
            return
        if self._is_silent:
            self._on_message_in_silence(message)
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
        if message.kind == Kind.HEARTBEAT:
            self._on_beat()

    def stand(self) -> None:
        """For election, now: nobody else could."""
        self.raft.campaign()
        self._pump()

    def step_down(self) -> None:
        """As the leader, after a sleep in which others may have been elected: ask before leading on."""
        if self.is_leader:
            self.raft.become(Role.FOLLOWER, self.raft.term)
            self._pump()

    def on_distances(self) -> None:
        """They may have changed: somebody is connected, or there was something to agree on."""
        self.raft.use(self._patience.settings(self._round_trips_s()))
        self._set_timer()

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
        """As the leader. Raises NotLeader, and UsageError for what no log may hold."""
        if not self.is_leader:
            raise NotLeader(self.leader)
        try:
            self.raft.propose(commands.checked(command))
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
        while not self._storing and not self.over and self.raft.has_output:
            output = self.raft.output()
            if output.snapshot is None and not output.entries and output.hard_state is None:
                self._carry_out(output)
                continue
            self._storing = True
            self._storing_since = self._loop.time()
            self._look_at_write(LOOKS)
            self._store.store(output, lambda error, output=output: self._call(self._on_stored, output, error))  # type: ignore[misc]
        self._set_timer()

    def _set_timer(self) -> None:
        """For when the rules want to hear of time next. Each word of a leader moves it: to set it anew costs a fraction
        of waking for nothing."""
        next_at = self._ticking.next_at
        if self.over or self._is_silent:
            return
        if self._timer is not None:
            if abs(self._timer.when() - next_at) <= EARLY_S:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(next_at, self._tick)

    def _send_heartbeats(self) -> None:
        """Without waiting for the disk; mostly there is nothing else to be done. Those of a term that is not stored yet
        do wait: the others remember in which term we spoke (``recollection``), so we must, too."""
        if self.raft.term == self._term_stored:
            for message in self.raft.take_heartbeats():
                self._send(message)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """From the store's thread; the loop may have ended meanwhile."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            log.debug("the loop is closed")

    def _on_stored(self, output: Output, error: Exception | None) -> None:
        self._storing = False
        if self._slow is not None:
            self._slow.cancel()
        if error is not None:
            self._on_disk_failed(error)
            return
        self._patience.note_write(self._loop.time() - self._storing_since)
        if output.hard_state is not None:
            self._term_stored = output.hard_state.term
        if self.over:
            return
        if self._is_silent:
            self._speak_again()
        self._carry_out(output)
        if not self.over:
            self._send_heartbeats()
            self._pump()

    def _look_at_write(self, looks: int) -> None:
        """So often more it is looked at. A process that stood still itself, for however long, has looked once."""
        if looks:
            self._slow = self._loop.call_later(SILENT_AFTER_S / LOOKS, self._look_at_write, looks - 1)
        else:
            self._fall_silent()

    def _on_disk_failed(self, error: Exception) -> None:
        """Nobody knows what is on the disk now, and all that we would say depends on it."""
        self._break(
            Broken(
                f"what the cluster agreed on could not be written to this host's disk: {error}",
                hint="see to its disk (`dmesg`)",
            )
        )

    def _fall_silent(self) -> None:
        """What is being stored takes too long."""
        self._is_silent = True
        log.error("this member is silent: %s", self.trouble)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.raft.role != Role.FOLLOWER:
            self.raft.become(Role.FOLLOWER, self.raft.term)
        self._fail_all(Superseded(self.trouble))
        self._on_change()

    def _on_message_in_silence(self, message: Message) -> None:
        """Only who leads is of interest, so that it can be asked. It hears nothing of us: it would count on us."""
        if message.kind == Kind.HEARTBEAT and message.term >= self.raft.term:
            before = self.raft.leader
            self.raft.step(message)
            self.raft.take_heartbeats()
            if self.raft.leader != before:
                self._on_change()

    def _speak_again(self) -> None:
        """It has been stored."""
        self._is_silent = False
        log.warning("this member takes part again: its disk has answered")
        self._ticking = Ticking(self.raft, self._loop.time())

    def _carry_out(self, output: Output) -> None:
        for message in output.messages:
            self._send(message)
        if not self._applied_all(output):
            return
        self.raft.done()
        self._reads_due += [(index, context) for context, index in output.reads]
        self._answer_reads()
        if output.role is not None and output.role != Role.LEADER:
            self._fail_all(Superseded("another host leads now"))
        self._compact_if_due()
        if output.committed or output.snapshot or output.role or output.leader is not None:
            self.on_distances()
            self._on_change()

    def _applied_all(self, output: Output) -> bool:
        """A release that knows more than ours may have proposed it; we must neither guess nor pass over it."""
        at = self._applied.index
        try:
            if output.snapshot is not None:
                at = output.snapshot.index
                self.facts, self._applied = _facts_of(output.snapshot), output.snapshot
            for entry in output.committed:
                at = entry.index
                self._apply(entry)
        except Exception as error:
            log.exception("entry %d of the cluster's log cannot be applied", at)
            self._break(error if isinstance(error, Broken) else _not_understood(f"entry {at}", error))
            return False
        return True

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
        if error is not None:
            self._on_disk_failed(error)


def _facts_of(snapshot: Snapshot) -> Facts:
    """Raises Broken."""
    try:
        return Facts.decoded(snapshot.data)
    except msgspec.DecodeError as error:
        raise _not_understood(f"the snapshot at entry {snapshot.index}", error) from error


def _not_understood(what: str, error: Exception) -> Broken:
    return Broken(
        f"{what} of the cluster's log cannot be applied by abi {__version__}: {error}", hint="upgrade abi on this host"
    )
