"""How the leader's log becomes everybody's, and what is committed (paper, 5.3 and 5.4.2; thesis, 10.2.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from abid.core.raft import change, quorum, reading
from abid.core.raft.interface import Dropped, Role
from abid.core.raft.messages import NOBODY, Entry, EntryKind, Kind, Message
from abid.core.raft.progress import Mode, Progress, tracked

if TYPE_CHECKING:
    from abid.core.raft.raft import Raft

SNAPSHOT_LOOKS: Final = 10
"""A snapshot may be on its way for so many election timeouts."""

# The leader.


def lead(raft: Raft) -> None:
    """The election is won. An empty entry begins the term: what earlier terms left is committed with it (paper, 5.4.2,
    8)."""
    raft.become(Role.LEADER, raft.term, raft.number)
    own = raft.own_progress
    if own is not None:
        own.replicate()
        own.is_active = True
    raft.change_index = raft.log.last_index  # there may be a change among what we have not applied
    append(raft, (Entry(0, 0),))
    send_appends(raft)


def ticks_left(raft: Raft) -> int:
    """In so many ticks there is something to do: a heartbeat, or a look at the quorum."""
    return max(1, min(raft.settings.heartbeat_ticks - raft.since_heartbeat, _quorum_ticks(raft) - raft.since_heard))


def pass_ticks(raft: Raft, count: int) -> None:
    """Ticks in which there is nothing to do."""
    raft.since_heard += count
    raft.since_heartbeat += count


def tick(raft: Raft) -> None:
    """Time for a heartbeat, or for a look whether a majority still hears us (thesis, 6.2)."""
    raft.since_heard += 1
    raft.since_heartbeat += 1
    if raft.since_heard >= _quorum_ticks(raft):
        raft.since_heard = 0
        if raft.settings.check_quorum and not _hears_quorum(raft):
            raft.become(Role.FOLLOWER, raft.term)
            return
        raft.transfer_to = NOBODY
        change.leave_if_due(raft)
        _give_up_snapshots(raft)
    if raft.since_heartbeat >= raft.settings.heartbeat_ticks:
        raft.since_heartbeat = 0
        send_heartbeats(raft, raft.reads.last)


def _quorum_ticks(raft: Raft) -> int:
    return raft.settings.quorum_ticks or raft.settings.election_ticks


def _hears_quorum(raft: Raft) -> bool:
    votes = {node: True for node, progress in raft.members.items() if progress.is_active or node == raft.number}
    for node, progress in raft.members.items():
        progress.is_active = node == raft.number
    configuration = raft.configuration
    return quorum.counted_by_both(configuration.voters, configuration.outgoing, votes) == quorum.Vote.WON


def _give_up_snapshots(raft: Raft) -> None:
    """Whether a snapshot arrived, its transfer or an answer should have said long ago: ask."""
    for progress in raft.members.values():
        if progress.mode == Mode.SNAPSHOT:
            progress.looks += 1
            if progress.looks >= SNAPSHOT_LOOKS:
                progress.probe()


def send_heartbeats(raft: Raft, read: bytes = b"") -> None:
    for node, progress in raft.members.items():
        if node != raft.number:
            # Not beyond what it is known to have: it may still have others' entries there.
            commit = min(progress.match, raft.log.committed)
            spared = raft.settings.spares_answers and not read and progress.is_active
            wants_no_answer = spared and progress.match == raft.log.last_index
            raft.send(Kind.HEARTBEAT, node, commit=commit, read=read, wants_no_answer=wants_no_answer)
            progress.told_commit = max(progress.told_commit, commit)


def propose(raft: Raft, message: Message) -> None:
    """Append, or pass on to the leader. Raises Dropped."""
    if raft.role != Role.LEADER:
        if raft.leader == NOBODY:
            raise Dropped("no leader is known at the moment", hint="try again")
        raft.outbox.append(msgspec.structs.replace(message, receiver=raft.leader, term=0))
        return
    if raft.own_progress is None:
        raise Dropped("this node leads and is no member any more", hint="try again")
    if raft.transfer_to != NOBODY:
        raise Dropped("leadership is being handed over", hint="try again")
    if raft.settings.rest_before_leaving and change.takes_our_vote(raft):
        raise Dropped("this node leads and is about to leave", hint="try again")
    entries = []
    for place, entry in enumerate(message.entries):
        index = raft.log.last_index + 1 + place
        if entry.kind == EntryKind.CHANGE:
            if raft.settings.check_changes and change.is_out_of_turn(raft, entry):
                entry = Entry(0, 0)
            else:
                raft.change_index = index
        entries.append(entry)
    append(raft, entries)
    send_appends(raft)


def append(raft: Raft, entries: list[Entry] | tuple[Entry, ...]) -> None:
    """To our own log. We count among those that have them when they are on disk."""
    last = raft.log.last_index
    raft.log.append([Entry(raft.term, last + 1 + place, entry.data, entry.kind) for place, entry in enumerate(entries)])
    raft.send(Kind.APPEND_ANSWER, raft.number, index=raft.log.last_index)


def send_appends(raft: Raft) -> None:
    for node in raft.members:
        if node != raft.number:
            send_append(raft, node)


def send_append(raft: Raft, node: int, *, even_empty: bool = True) -> bool:
    """What this member lacks, as far as we know and may send. Whether something went out."""
    progress = raft.members[node]
    if progress.is_paused:
        return False
    log = raft.log
    before = progress.next - 1
    term = log.term_of(before)
    if term is None:
        return _send_snapshot(raft, node, progress)
    entries: tuple[Entry, ...] = ()
    if progress.mode != Mode.REPLICATE or not progress.is_full:
        entries = log.between(progress.next, log.last_index, raft.settings.entries_bytes_max)
    if not entries and not even_empty:
        return False
    raft.send(Kind.APPEND, node, index=before, log_term=term, entries=entries, commit=log.committed)
    progress.sent(entries[-1].index if entries else 0, log.committed)
    return True


def _send_snapshot(raft: Raft, node: int, progress: Progress) -> bool:
    """What it lacks is compacted away. Not to who is not there: a snapshot is large, and one goes out at a time."""
    if not progress.is_active:
        return False
    snapshot = raft.take_snapshot()
    progress.send_snapshot(snapshot.index)
    raft.send(Kind.SNAPSHOT, node, snapshot=snapshot)
    return True


def commit(raft: Raft) -> bool:
    """Whether more is committed now: what a majority has, if it is of our own term (paper, 5.4.2)."""
    stored = {node: progress.match for node, progress in raft.members.items()}
    index = quorum.agreed_by_both(raft.configuration.voters, raft.configuration.outgoing, stored)
    if index <= raft.log.committed or raft.log.term_of(index) != raft.term:
        return False
    raft.log.commit_to(index)
    return True


def on_append_answer(raft: Raft, message: Message, progress: Progress) -> None:
    """A member stored entries, or found that its log parts from ours before them."""
    node = message.sender
    progress.is_active = True
    if message.refused:
        hint = message.hint
        if message.log_term:
            hint, _ = raft.log.agreeing(hint, message.log_term)
        if progress.refused(message.index, hint):
            if progress.mode == Mode.REPLICATE:
                progress.probe()
            send_append(raft, node)
        return
    if not (progress.has(message.index) or (progress.match == message.index and progress.mode == Mode.PROBE)):
        return
    if progress.mode == Mode.REPLICATE:
        progress.answered(message.index)
    elif progress.mode == Mode.PROBE or progress.match + 1 >= raft.log.first_index:
        progress.replicate()
    if commit(raft):
        reading.release(raft)
        send_appends(raft)
    elif node != raft.number and progress.may_learn_commit(raft.log.committed):
        send_append(raft, node)
    if node != raft.number:
        while send_append(raft, node, even_empty=False):
            pass  # there is room for more on the way
    if node == raft.transfer_to and progress.match == raft.log.last_index:
        raft.send(Kind.TIMEOUT_NOW, node)


def on_heartbeat_answer(raft: Raft, message: Message, progress: Progress) -> None:
    """It is there. If it lacks something, what was sent is perhaps lost: say where we are."""
    progress.is_active = True
    progress.is_held = False
    if progress.match < raft.log.last_index or progress.mode == Mode.PROBE:
        send_append(raft, message.sender)
    if message.read:
        reading.confirm(raft, message.sender, message.read)


def unreachable(raft: Raft, node: int) -> None:
    """What was on its way to this member may be lost."""
    progress = raft.members.get(node)
    if raft.role == Role.LEADER and progress is not None and progress.mode == Mode.REPLICATE:
        progress.probe()


def snapshot_ended(raft: Raft, node: int, *, arrived: bool) -> None:
    """The transfer is over. Its answer says more; until then, or a heartbeat's, nothing else goes out."""
    progress = raft.members.get(node)
    if raft.role == Role.LEADER and progress is not None and progress.mode == Mode.SNAPSHOT:
        if not arrived:
            progress.snapshot = 0
        progress.probe()
        progress.is_held = True


# The others.


def on_append(raft: Raft, message: Message) -> None:
    """Entries of the leader, or none, behind one that we should have."""
    log = raft.log
    if message.index < log.committed:
        raft.send(Kind.APPEND_ANSWER, message.sender, index=log.committed)
        return
    last = log.accept(message.index, message.log_term, message.entries)
    if last is not None:
        log.commit_to(max(log.committed, min(message.commit, last)))
        raft.send(Kind.APPEND_ANSWER, message.sender, index=last)
        return
    hint, term = log.agreeing(min(message.index, log.last_index), message.log_term)
    raft.send(Kind.APPEND_ANSWER, message.sender, index=message.index, refused=True, hint=hint, log_term=term)


def on_heartbeat(raft: Raft, message: Message) -> None:
    raft.log.commit_to(max(raft.log.committed, message.commit))
    if not message.wants_no_answer:
        raft.send(Kind.HEARTBEAT_ANSWER, message.sender, read=message.read)


def on_snapshot(raft: Raft, message: Message) -> None:
    """Take it in if it is ahead of what we know to be committed (paper, 7)."""
    snapshot, log = message.snapshot, raft.log
    if snapshot is None:
        return
    is_member = raft.number in snapshot.configuration.members
    if snapshot.index > log.committed and is_member and log.term_of(snapshot.index) == snapshot.term:
        log.commit_to(snapshot.index)  # we have it all, and are told that it is committed
    elif snapshot.index > log.committed and is_member:
        log.restore(snapshot)
        raft.configuration = snapshot.configuration
        raft.members = tracked({}, snapshot.configuration, log.last_index, raft.settings.inflight_max)
        raft.send(Kind.APPEND_ANSWER, message.sender, index=log.last_index)
        return
    raft.send(Kind.APPEND_ANSWER, message.sender, index=log.committed)


FOLLOWERS: Final[dict[Kind, Callable[[Raft, Message], None]]] = {
    Kind.APPEND: on_append, Kind.HEARTBEAT: on_heartbeat, Kind.SNAPSHOT: on_snapshot,
}  # fmt: skip
LEADERS: Final[dict[Kind, Callable[[Raft, Message, Progress], None]]] = {
    Kind.APPEND_ANSWER: on_append_answer, Kind.HEARTBEAT_ANSWER: on_heartbeat_answer,
}  # fmt: skip
