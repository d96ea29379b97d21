"""One member of the cluster: who leads, what is agreed on. Messages and ticks in, ``Output`` out.

The shell calls ``step`` and ``tick``, then takes ``output``: it stores what is to be stored (all of it or nothing,
fsynced if ``must_sync``), only then sends the messages, applies what is committed, and says ``done``. Nothing here
reads a clock or draws lots: ``draw(a, b)`` is given.

All or nothing, for the sake of changes: a change is proposed only when the one before it has been applied, and so the
message that brings it tells that the one before is committed. Who had stored the entry and not that could stand for
election under a configuration two changes old, whose majority need not meet today's.

The rules stand in four files beside this one, by what they are about: ``election``, ``replication``, ``change``,
``reading``.
"""

from __future__ import annotations

from collections.abc import Callable

from abid.core.raft import change, election, reading, replication
from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Output, Role, Settings, Stranger
from abid.core.raft.log import Log
from abid.core.raft.messages import AFTER_STORING, ANSWERS, NOBODY, Entry, EntryKind, HardState, Kind, Message, Snapshot
from abid.core.raft.progress import Mode, Progress, tracked
from abid.core.raft.recollection import Recollection, Standing


class Raft:
    """See the module. ``take_snapshot`` gives the application's latest, for a member that is too far behind."""

    def __init__(
        self,
        number: int,
        log: Log,
        configuration: Configuration,
        hard_state: HardState,
        draw: Callable[[int, int], int],
        take_snapshot: Callable[[], Snapshot],
        settings: Settings | None = None,
    ) -> None:
        self.number = number
        self.log = log
        self.configuration = configuration
        self.settings = settings or Settings()
        self.draw = draw
        self.take_snapshot = take_snapshot
        self.term, self.vote = hard_state.term, hard_state.vote
        log.commit_to(max(hard_state.commit, log.committed))
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.members = tracked({}, configuration, log.last_index, self.settings.inflight_max)
        self.votes: dict[int, bool] = {}
        self.transfer_to = NOBODY
        self.change_index = 0
        """As a leader: the last entry that may be a change which is not applied yet."""
        self.since_heard = 0
        """As a leader: since its quorum was looked at."""
        self.since_heartbeat = 0
        self.election_timeout = 0
        self.standing_in = 0
        """Ticks until we stand for a leader whose connection closed; 0: the election timeout alone decides."""
        self.recollection = Recollection(number)
        self.reads = reading.Reads()
        self.outbox: list[Message] = []
        self.outbox_after_storing: list[Message] = []
        self.forget_progress()
        self._told = HardState(self.term, self.vote, log.committed)
        self._told_role, self._told_leader = self.role, self.leader
        self._taken: Output | None = None
        self._own_answers: list[Message] = []

    # What is so.

    @property
    def own_progress(self) -> Progress | None:
        return self.members.get(self.number)

    @property
    def may_lead(self) -> bool:
        """Voters stand for election, but not in the middle of taking in a snapshot."""
        is_voter = self.number in self.configuration.all_voters
        return is_voter and self.log.restoring is None

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def standing(self) -> Standing:
        """What we say of ourselves on a new connection; ``recollection.missing`` is what others make of it."""
        return Standing(self.term, self.vote, self.log.last_index)

    def has_caught_up(self, node: int) -> bool:
        """As a leader: whether this member has all that is committed, and was heard of late. Only then does a learner
        become a voter, or nothing could be committed until it has (thesis, 4.2.1)."""
        progress = self.members.get(node)
        if self.role != Role.LEADER or progress is None:
            return False
        return progress.is_active and progress.mode == Mode.REPLICATE and progress.match >= self.log.committed

    # What the rules do to it.

    def become(self, role: Role, term: int, leader: int = NOBODY) -> None:
        """A new role in a term, from the beginning."""
        self.role, self.leader = role, leader
        if term != self.term:
            self.term, self.vote = term, NOBODY
        self.votes.clear()
        self.transfer_to = NOBODY
        self.since_heard = self.since_heartbeat = self.standing_in = 0
        self.change_index = 0
        self.reads = reading.Reads()
        self.forget_progress()

    def forget_progress(self) -> None:
        """Nothing is known of the others' logs, and the next election is at another time."""
        self._draw_timeout()
        last = self.log.last_index
        for node in self.members:
            self.members[node] = Progress(last + 1, self.settings.inflight_max)
        own = self.own_progress
        if own is not None:
            own.match = last

    def _draw_timeout(self) -> None:
        ticks = self.settings.election_ticks
        self.election_timeout = ticks + self.draw(0, ticks - 1)

    def send(self, kind: Kind, receiver: int, **words: object) -> None:
        """In our own term, if ``words`` have no other."""
        message = Message(kind, self.number, receiver, **{"term": self.term, **words})  # type: ignore[arg-type]
        (self.outbox_after_storing if kind in AFTER_STORING else self.outbox).append(message)

    # What happens to it.

    def tick(self) -> None:
        """Time passes, by one tick."""
        if self.role == Role.LEADER:
            replication.tick(self)
        else:
            election.tick(self)

    @property
    def ticks_left(self) -> int:
        """The next tick that does more than count, if nothing happens before it: 1 is the next."""
        return replication.ticks_left(self) if self.role == Role.LEADER else election.ticks_left(self)

    def pass_ticks(self, count: int) -> None:
        """As ``tick``, so many times: fewer than ``ticks_left``."""
        if count > 0:
            rules = replication if self.role == Role.LEADER else election
            rules.pass_ticks(self, count)

    def use(self, settings: Settings) -> None:
        """From now on. An election timeout that runs already ends by the new times: safety depends on none of them
        (paper, 5.2)."""
        if settings != self.settings:
            self.settings = settings
            self._draw_timeout()

    def campaign(self) -> None:
        """Stand for election now. Nothing, for who cannot."""
        election.stand(self, pre_vote=self.settings.pre_vote)

    def propose(self, data: bytes) -> None:
        """Raises Dropped."""
        self._propose(Entry(0, 0, data))

    def propose_change(self, data: bytes) -> None:
        """``data`` as ``change.encoded`` makes it; while another is under way it becomes an empty entry. Raises
        Dropped."""
        self._propose(Entry(0, 0, data, EntryKind.CHANGE))

    def _propose(self, *entries: Entry) -> None:
        replication.propose(self, Message(Kind.PROPOSE, self.number, self.number, entries=entries))

    def transfer(self, node: int) -> None:
        """Hand leadership over (thesis, 3.10)."""
        election.transfer(self, node)

    def read(self, context: bytes) -> None:
        """Have ``Output.reads`` say when what is known now may be read (thesis, 6.4)."""
        reading.ask(self, Message(Kind.READ, self.number, self.number, read=context))

    def leader_lost(self, node: int) -> None:
        """The connection to this node closed. If it is our leader we forget it, and stand for election in order of
        rank."""
        election.leader_lost(self, node)

    def forget_leader(self) -> None:
        """Others may be voted for although it was heard just now. Not where reads rely on its lease."""
        if self.role == Role.FOLLOWER and not self.settings.reads_by_lease:
            self.leader = NOBODY

    def unreachable(self, node: int) -> None:
        """What was sent to this member may be lost."""
        replication.unreachable(self, node)

    def snapshot_ended(self, node: int, *, arrived: bool) -> None:
        """The transfer of a snapshot is over."""
        replication.snapshot_ended(self, node, arrived=arrived)

    def apply_change(self, data: bytes) -> Configuration:
        """The application comes to a committed change. Returns the configuration from here on."""
        return change.apply(self, data)

    def step(self, message: Message) -> None:
        """Raises Stranger for an answer of somebody who is no member."""
        if message.kind in ANSWERS and message.sender not in self.members:
            raise Stranger(f"node {message.sender} answers, and is no member")
        self._step(message)

    def _step(self, message: Message) -> None:
        self.recollection.note(message)
        if not election.admit(self, message):
            return
        match message.kind:
            case Kind.VOTE | Kind.PRE_VOTE:
                election.answer(self, message)
            case Kind.VOTE_ANSWER | Kind.PRE_VOTE_ANSWER:
                election.count(self, message)
            case Kind.TIMEOUT_NOW:
                election.stand_at_once(self)
            case Kind.APPEND | Kind.HEARTBEAT | Kind.SNAPSHOT:
                if election.follow(self, message):
                    replication.FOLLOWERS[message.kind](self, message)
            case Kind.APPEND_ANSWER | Kind.HEARTBEAT_ANSWER:
                progress = self.members.get(message.sender)
                if self.role == Role.LEADER and progress is not None:
                    replication.LEADERS[message.kind](self, message, progress)
            case Kind.PROPOSE:
                replication.propose(self, message)
            case Kind.READ:
                reading.ask(self, message)
            case Kind.READ_ANSWER:
                self.reads.ready.append((message.read, message.index))

    # What comes out.

    @property
    def has_output(self) -> bool:
        log = self.log
        return bool(
            self.outbox
            or self.outbox_after_storing
            or log.restoring
            or log.stored < log.last_index
            or self.reads.ready
            or self.hard_state != self._told
            or (self.role, self.leader) != (self._told_role, self._told_leader)
            or (log.applied < log.committed and log.restoring is None)
        )

    def output(self) -> Output:
        """To be carried out and answered with ``done`` before the next."""
        assert self._taken is None, "the last output has not been carried out"
        log, hard_state = self.log, self.hard_state
        own = [message for message in self.outbox_after_storing if message.receiver == self.number]
        others = [message for message in self.outbox_after_storing if message.receiver != self.number]
        is_news = (self.role, self.leader) != (self._told_role, self._told_leader)
        entries = log.unstored()
        taken = Output(
            hard_state=hard_state if hard_state != self._told else None,
            entries=entries,
            snapshot=log.restoring,
            must_sync=bool(entries) or (hard_state.term, hard_state.vote) != (self._told.term, self._told.vote),
            messages=(*self.outbox, *others),
            committed=log.to_apply(self.settings.apply_bytes_max),
            reads=tuple(self.reads.ready),
            leader=self.leader if is_news else None,
            role=self.role if is_news else None,
        )
        self._own_answers = own
        self.outbox, self.outbox_after_storing = [], []
        self.reads.ready = []
        self._told, self._told_role, self._told_leader = hard_state, self.role, self.leader
        log.stored = log.last_index
        self._taken = taken
        return taken

    def take_heartbeats(self) -> tuple[Message, ...]:
        """What may leave while an output is being stored. A heartbeat says who leads the term, which a majority had
        stored before anybody led it; its answer says that it was heard, and that is so whatever a disk holds."""
        if not self.outbox:
            return ()
        found = tuple(message for message in self.outbox if message.kind in (Kind.HEARTBEAT, Kind.HEARTBEAT_ANSWER))
        self.outbox = [message for message in self.outbox if message not in found]
        return found

    def done(self) -> None:
        """The last output has been carried out: our own answers to ourselves count now."""
        taken, self._taken = self._taken, None
        assert taken is not None, "there is no output to be done with"
        if taken.snapshot is not None:
            if self.log.restoring is taken.snapshot:
                self.log.restoring = None
            self.log.applied = max(self.log.applied, taken.snapshot.index)
        own, self._own_answers = self._own_answers, []
        for message in own:
            self._step(message)
        if taken.committed:
            self.log.applied = max(self.log.applied, taken.committed[-1].index)
        if taken.committed or taken.snapshot is not None:
            change.leave_if_due(self)
