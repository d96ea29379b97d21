"""Faults planted into the rules, one at a time: a simulation that does not find them proves nothing.

Each is a rule of the paper or the thesis, broken as somebody might break it: a check left out, a promise not kept on
disk, a majority counted wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from abid.core.raft import change, election, quorum, reading, replication
from abid.core.raft.configuration import Configuration
from abid.core.raft.interface import Output, Role
from abid.core.raft.log import Log
from abid.core.raft.messages import NOBODY, Entry, HardState, Kind, Message
from abid.core.raft.progress import Progress, tracked
from abid.core.raft.raft import Raft
from abid.core.raft.recollection import Recollection
from tests.core.raft.disk import Disk, Write
from tests.core.raft.simulation import Cluster

Patch = pytest.MonkeyPatch
Fault = Callable[[Patch], None]
FAULTS: dict[str, Fault] = {}


def fault(plant: Fault) -> Fault:
    FAULTS[plant.__name__] = plant
    return plant


# What is on disk.


def nobody_remembers(patch: Patch) -> None:
    """So that it is not found by what others recollect, which finds each of these at once, but by what comes of it."""
    patch.setattr(Cluster, "accusation", lambda self, back: None)
    patch.setattr(Cluster, "restore_disk", lambda self: None)


@fault
def the_vote_is_not_stored(patch: Patch) -> None:
    nobody_remembers(patch)
    put = Disk.put

    def forgets(disk: Disk, write: Write) -> None:
        put(disk, msgspec.structs.replace(write, vote=NOBODY) if isinstance(write, HardState) else write)

    patch.setattr(Disk, "put", forgets)


@fault
def the_term_is_not_stored(patch: Patch) -> None:
    nobody_remembers(patch)
    put = Disk.put

    def forgets(disk: Disk, write: Write) -> None:
        before = disk.hard_state
        if isinstance(write, HardState):
            write = msgspec.structs.replace(write, term=before.term, vote=before.vote)
        put(disk, write)

    patch.setattr(Disk, "put", forgets)


@fault
def a_vote_alone_is_not_synced(patch: Patch) -> None:
    nobody_remembers(patch)
    output = Raft.output

    def hurries(own: Raft) -> Output:
        taken = output(own)
        taken.must_sync = bool(taken.entries)
        return taken

    patch.setattr(Raft, "output", hurries)


@fault
def entries_are_not_synced(patch: Patch) -> None:
    nobody_remembers(patch)
    output = Raft.output

    def hurries(own: Raft) -> Output:
        before = own._told
        taken = output(own)
        after = taken.hard_state or before
        taken.must_sync = (before.term, before.vote) != (after.term, after.vote)
        return taken

    patch.setattr(Raft, "output", hurries)


@fault
def a_crash_takes_what_was_synced(patch: Patch) -> None:
    nobody_remembers(patch)
    crash = Disk.crash

    def loses(disk: Disk, kept: int) -> None:
        torn = kept < len(disk.unsynced)
        crash(disk, kept)
        if torn and disk.entries:
            disk.entries.pop()
            last = disk.last_index
            disk.hard_state = msgspec.structs.replace(disk.hard_state, commit=min(disk.hard_state.commit, last))

    patch.setattr(Disk, "crash", loses)


@fault
def messages_leave_before_anything_is_stored(patch: Patch) -> None:
    nobody_remembers(patch)
    patch.setattr(Disk, "store", Disk.write)


@fault
def heartbeats_leave_in_a_term_that_is_not_stored(patch: Patch) -> None:
    patch.setattr(Cluster, "may_leave_now", lambda cluster, node: True)


@fault
def entries_are_stored_without_cutting_what_they_replace(patch: Patch) -> None:
    nobody_remembers(patch)
    put = Disk.put

    def keeps(disk: Disk, write: Write) -> None:
        if not isinstance(write, Entry) or write.index > disk.last_index:
            put(disk, write)

    patch.setattr(Disk, "put", keeps)


@fault
def a_restored_disk_comes_back_as_the_voter_it_was(patch: Patch) -> None:
    patch.setattr(Recollection, "missing", lambda self, node, standing: None)


# Elections.


@fault
def a_vote_is_given_to_a_log_that_lacks_entries(patch: Patch) -> None:
    patch.setattr(Log, "is_current", lambda self, index, term: True)


@fault
def a_longer_log_of_an_older_term_wins(patch: Patch) -> None:
    patch.setattr(Log, "is_current", lambda self, index, term: index >= self.last_index)


@fault
def two_votes_are_given_in_one_term(patch: Patch) -> None:
    def gives(own: Raft, message: Message) -> None:
        own.vote, own.leader = NOBODY, NOBODY
        answer(own, message)

    answer = election.answer
    patch.setattr(election, "answer", gives)


@fault
def votes_of_another_election_are_counted(patch: Patch) -> None:
    admit = election.admit
    answers = (Kind.VOTE_ANSWER, Kind.PRE_VOTE_ANSWER)
    patch.setattr(election, "admit", lambda own, message: message.kind in answers or admit(own, message))


@fault
def half_of_the_voters_are_enough(patch: Patch) -> None:
    def counted(voters: Any, votes: Any) -> quorum.Vote:
        granted = sum(votes.get(voter) is True for voter in voters)
        return quorum.Vote.WON if granted >= max(1, len(voters) // 2) else quorum.Vote.PENDING

    patch.setattr(quorum, "counted", counted)


@fault
def learners_are_counted_as_voters(patch: Patch) -> None:
    patch.setattr(
        quorum, "counted_by_both", lambda voters, outgoing, votes: quorum.counted([*voters, *outgoing][:1], votes)
    )


@fault
def a_leader_does_not_step_down_for_a_newer_term(patch: Patch) -> None:
    admit = election.admit

    def stays(own: Raft, message: Message) -> bool:
        return own.role == Role.LEADER if message.term > own.term and own.role == Role.LEADER else admit(own, message)

    patch.setattr(election, "admit", stays)


@fault
def a_pre_vote_ignores_a_leader_that_is_heard(patch: Patch) -> None:
    patch.setattr(election, "_hears_a_leader", lambda own: False)


@fault
def a_leader_does_not_look_whether_it_is_heard(patch: Patch) -> None:
    patch.setattr(replication, "_hears_quorum", lambda own: True)


@fault
def a_pre_vote_counts_as_a_vote(patch: Patch) -> None:
    """Who would be voted for begins its term and leads it, without asking again."""
    stand = election.stand

    def leads(own: Raft, *, pre_vote: bool, is_transfer: bool = False) -> None:
        if own.role == Role.PRE_CANDIDATE and not pre_vote:
            own.become(Role.CANDIDATE, own.term + 1)
            own.vote = own.number
            replication.lead(own)
        else:
            stand(own, pre_vote=pre_vote, is_transfer=is_transfer)

    patch.setattr(election, "stand", leads)


@fault
def what_is_committed_is_learnt_of_any_log(patch: Patch) -> None:
    def learns(own: Raft, message: Message) -> None:
        own.log.commit_to(max(own.log.committed, min(message.commit, own.log.last_index)))

    patch.setattr(election, "_learn_what_is_committed", learns)


@fault
def all_stand_at_once_for_a_lost_leader(patch: Patch) -> None:
    patch.setattr(election, "rank", lambda own, lost: 0)


# Replication.


@fault
def entries_of_earlier_terms_are_committed_by_counting(patch: Patch) -> None:
    def commits(own: Raft) -> bool:
        stored = {node: progress.match for node, progress in own.members.items()}
        index = quorum.agreed_by_both(own.configuration.voters, own.configuration.outgoing, stored)
        if index <= own.log.committed or index > own.log.last_index:
            return False
        own.log.commit_to(index)
        return True

    patch.setattr(replication, "commit", commits)


@fault
def the_entry_before_is_not_compared(patch: Patch) -> None:
    accept = Log.accept

    def accepts(log: Log, index: int, term: int, entries: Any) -> int | None:
        own = log.term_of(index)
        return accept(log, index, term if own is None else own, entries)

    patch.setattr(Log, "accept", accepts)


@fault
def a_follower_commits_beyond_what_was_compared(patch: Patch) -> None:
    on_append = replication.on_append

    def commits(own: Raft, message: Message) -> None:
        on_append(own, message)
        own.log.commit_to(max(own.log.committed, min(message.commit, own.log.last_index)))

    patch.setitem(replication.FOLLOWERS, Kind.APPEND, commits)


@fault
def a_heartbeat_tells_a_commit_beyond_what_is_known_to_match(patch: Patch) -> None:
    def commits(own: Raft, message: Message) -> None:
        own.log.commit_to(max(own.log.committed, min(message.commit, own.log.last_index)))
        own.send(Kind.HEARTBEAT_ANSWER, message.sender, read=message.read)

    def tells(own: Raft, read: bytes = b"") -> None:
        for node in own.members:
            if node != own.number:
                own.send(Kind.HEARTBEAT, node, commit=own.log.committed, read=read)

    patch.setattr(replication, "send_heartbeats", tells)
    patch.setitem(replication.FOLLOWERS, Kind.HEARTBEAT, commits)


@fault
def a_refusal_counts_as_stored(patch: Patch) -> None:
    on_answer = replication.on_append_answer

    def counts(own: Raft, message: Message, progress: Progress) -> None:
        on_answer(own, msgspec.structs.replace(message, refused=False), progress)

    patch.setitem(replication.LEADERS, Kind.APPEND_ANSWER, counts)


@fault
def answers_of_an_older_term_are_counted(patch: Patch) -> None:
    admit = election.admit
    patch.setattr(election, "admit", lambda own, message: message.kind == Kind.APPEND_ANSWER or admit(own, message))


@fault
def a_snapshot_is_taken_in_over_a_newer_log(patch: Patch) -> None:
    def takes(own: Raft, message: Message) -> None:
        if message.snapshot is not None:
            own.log.restore(message.snapshot)
            own.configuration = message.snapshot.configuration
            own.send(Kind.APPEND_ANSWER, message.sender, index=own.log.last_index)

    patch.setitem(replication.FOLLOWERS, Kind.SNAPSHOT, takes)


@fault
def a_snapshot_comes_without_its_configuration(patch: Patch) -> None:
    on_snapshot = replication.on_snapshot

    def takes(own: Raft, message: Message) -> None:
        before = own.configuration
        on_snapshot(own, message)
        own.configuration = before

    patch.setitem(replication.FOLLOWERS, Kind.SNAPSHOT, takes)


# Changes and reads.


@fault
def only_the_new_majority_decides_in_a_joint_configuration(patch: Patch) -> None:
    patch.setattr(quorum, "agreed_by_both", lambda voters, outgoing, stored: quorum.agreed(voters, stored))
    patch.setattr(quorum, "counted_by_both", lambda voters, outgoing, votes: quorum.counted(voters, votes))


@fault
def several_voters_change_in_one_simple_step(patch: Patch) -> None:
    def apply(own: Raft, data: bytes) -> Configuration:
        proposal = change.decoded(data)
        if not proposal.leaves:
            own.configuration = own.configuration._with(proposal.changes)
            own.members = tracked(own.members, own.configuration, own.log.last_index)
        return own.configuration

    patch.setattr(change, "apply", apply)
    patch.setattr(change, "is_out_of_turn", lambda own, entry: False)


@fault
def a_change_begins_while_another_is_under_way(patch: Patch) -> None:
    """Each is of one voter only, and two of them together are not."""
    patch.setattr(change, "is_out_of_turn", lambda own, entry: False)


@fault
def a_read_is_answered_without_asking_whether_we_still_lead(patch: Patch) -> None:
    def answers(own: Raft, message: Message) -> None:
        if own.role == Role.LEADER:
            own.reads.ready.append((message.read, own.log.committed))

    patch.setattr(reading, "ask", answers)


@fault
def a_read_is_answered_before_the_term_has_committed_anything(patch: Patch) -> None:
    def asks(own: Raft, message: Message) -> None:
        if own.role != Role.LEADER:
            ask(own, message)
            return
        own.reads.waiting.setdefault(message.read, reading._Read(message, own.log.committed))
        own.reads.waiting[message.read].acks[own.number] = True
        replication.send_heartbeats(own, message.read)

    ask = reading.ask
    patch.setattr(reading, "ask", asks)
