"""Single rules, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from abid.core.raft.change import Proposal, encoded
from abid.core.raft.configuration import Change, ChangeKind, Configuration
from abid.core.raft.election import rank
from abid.core.raft.interface import Dropped, Role, Settings
from abid.core.raft.log import Log
from abid.core.raft.messages import Entry, EntryKind, HardState, Kind, Message, Snapshot
from abid.core.raft.raft import Raft


def raft_of(
    voters: int, *entries: Entry, number: int = 1, term: int = 1, pre_vote: bool = False, **settings: Any
) -> Raft:
    """One of so many voters, which knows these entries behind a first one."""
    configuration = Configuration(voters=frozenset(range(1, voters + 1)))
    return Raft(
        number,
        Log(1, 1, entries),
        configuration,
        HardState(term, 0, 1),
        lambda low, _high: low,
        lambda: Snapshot(1, 1, configuration),
        Settings(pre_vote=pre_vote, **settings),
    )


def carry_out(raft: Raft) -> tuple[Message, ...]:
    """All outputs, applied; what was sent."""
    sent: list[Message] = []
    while raft.has_output:
        output = raft.output()
        sent += output.messages
        for entry in output.committed:
            if entry.kind:
                raft.apply_change(entry.data)
        raft.done()
    return tuple(sent)


def elect(raft: Raft) -> None:
    raft.campaign()
    carry_out(raft)
    for node in sorted(raft.configuration.voters - {1}):
        raft.step(Message(Kind.VOTE_ANSWER, node, 1, raft.term))
    carry_out(raft)
    assert raft.role == Role.LEADER


def store(raft: Raft, index: int, *nodes: int) -> None:
    """These members say that they have stored all up to ``index``."""
    for node in nodes:
        raft.step(Message(Kind.APPEND_ANSWER, node, 1, raft.term, index=index))
    carry_out(raft)


def test_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """Paper, figure 8: a majority has it, and yet it may be overwritten."""
    raft = raft_of(5, Entry(2, 2, b"of term 2"), term=3)
    elect(raft)
    assert (raft.term, raft.log.last_index) == (4, 3)
    store(raft, 2, 2, 3)
    assert raft.log.committed == 1
    store(raft, 3, 2, 3)
    assert raft.log.committed == 3


def test_a_leader_whose_vote_is_about_to_go_proposes_nothing_more() -> None:
    raft = raft_of(2)
    elect(raft)
    store(raft, 2, 2)
    raft.propose_change(encoded(Proposal((Change(ChangeKind.REMOVE, 1),))))
    with pytest.raises(Dropped, match="about to leave"):
        raft.propose(b"too late")
    store(raft, 3, 2)
    assert raft.role == Role.FOLLOWER
    assert raft.configuration.voters == {2}


def test_one_change_at_a_time() -> None:
    """Thesis, 4.1: what comes while another is under way takes its place in the log and does nothing."""
    raft = raft_of(3)
    elect(raft)
    store(raft, 2, 2, 3)
    raft.propose_change(encoded(Proposal((Change(ChangeKind.LEARNER, 4),))))
    raft.propose_change(encoded(Proposal((Change(ChangeKind.LEARNER, 5),))))
    carry_out(raft)
    store(raft, 4, 2, 3)
    assert raft.configuration.learners == {4}
    raft.propose_change(encoded(Proposal((Change(ChangeKind.LEARNER, 5),))))
    carry_out(raft)
    store(raft, 5, 2, 3)
    assert raft.configuration.learners == {4, 5}


def test_a_leader_that_no_majority_hears_steps_down() -> None:
    """Thesis, 6.2."""
    raft = raft_of(3, check_quorum=True)
    elect(raft)
    for _ in range(raft.settings.election_ticks):
        raft.tick()
    assert raft.role == Role.FOLLOWER


@pytest.mark.parametrize("kind", [Kind.APPEND, Kind.HEARTBEAT, Kind.VOTE])
def test_who_speaks_in_an_older_term_is_told_the_newer_one(kind: Kind) -> None:
    """Paper, figure 2: or a leader that lost its followers to a term that nobody leads would lead nobody for ever."""
    raft = raft_of(3, term=7)
    raft.step(Message(kind, 2, 1, 5, index=9, log_term=5))
    [answer] = carry_out(raft)
    assert (answer.receiver, answer.term) == (2, 7)
    older = raft_of(3, term=5)
    older.campaign()
    older.step(Message(answer.kind, 2, 1, answer.term, refused=answer.refused))
    assert (older.role, older.term) == (Role.FOLLOWER, 7)


def test_ranks_go_round_behind_the_lost_leader() -> None:
    raft = raft_of(5)
    assert [rank(raft, lost) for lost in (5, 4, 3, 2)] == [0, 1, 2, 3]


def test_turns_are_two_ticks_apart_and_end_with_a_vote_for_another() -> None:
    def becomes_candidate_after(raft: Raft) -> int:
        for ticks in range(1, 99):
            raft.tick()
            if raft.role == Role.PRE_CANDIDATE:
                return ticks
        return 99

    def follower_of(leader: int) -> Raft:
        raft = raft_of(5, pre_vote=True, check_quorum=True)
        raft.step(Message(Kind.HEARTBEAT, leader, 1, 1))
        return raft

    waits = []
    for leader in (5, 4, 3):
        raft = follower_of(leader)
        raft.leader_lost(leader)
        waits.append(becomes_candidate_after(raft))
    assert waits == [1, 3, 5]
    raft = follower_of(4)
    raft.leader_lost(4)
    raft.step(Message(Kind.VOTE, 5, 1, 2, index=9, log_term=1))
    assert becomes_candidate_after(raft) == raft.settings.election_ticks
    raft = follower_of(4)
    raft.leader_lost(3)
    assert (raft.leader, becomes_candidate_after(raft)) == (4, raft.settings.election_ticks)


def tied(number: int, other: int, **settings: bool) -> Raft:
    """A candidate of three that another one of its term asks for its vote."""
    raft = raft_of(3, number=number, **settings)
    raft.campaign()
    carry_out(raft)
    if raft.role == Role.PRE_CANDIDATE:
        raft.step(Message(Kind.PRE_VOTE_ANSWER, other, number, 2))
        carry_out(raft)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    raft.step(Message(Kind.VOTE, other, number, 2, index=1, log_term=1))
    [answer] = carry_out(raft)
    assert (answer.receiver, answer.refused) == (other, True)
    return raft


def stands_again_after(raft: Raft) -> int:
    """So many ticks."""
    for ticks in range(1, 99):
        raft.tick()
        if (raft.role, raft.term) != (Role.CANDIDATE, 2):
            return ticks
    return 99


def test_a_tie_is_broken_by_number_and_not_by_another_lot() -> None:
    """With equal lots, as here, two candidates would else meet in term after term."""
    ours = {"pre_vote": True, "check_quorum": True}
    assert [stands_again_after(tied(1, 2, **ours)), stands_again_after(tied(2, 1, **ours))] == [1, 3]
    plain = {"pre_vote": False}
    ticks = Settings().election_ticks
    assert [stands_again_after(tied(1, 2, **plain)), stands_again_after(tied(2, 1, **plain))] == [ticks, ticks]


def test_a_candidate_in_a_tie_follows_who_wins_it() -> None:
    raft = tied(2, 1, pre_vote=True, check_quorum=True)
    raft.step(Message(Kind.APPEND, 1, 2, 2, index=1, log_term=1))
    assert (raft.role, raft.leader, raft.standing_in) == (Role.FOLLOWER, 1, 0)


def test_a_learner_does_not_stand_for_a_lost_leader() -> None:
    raft = raft_of(3, pre_vote=True)
    raft.configuration = Configuration(voters=frozenset((2, 3)), learners=frozenset((1,)))
    raft.step(Message(Kind.HEARTBEAT, 2, 1, 1))
    raft.leader_lost(2)
    for _ in range(99):
        raft.tick()
    assert (raft.role, raft.leader) == (Role.FOLLOWER, 0)


def test_nobody_votes_while_a_leader_is_heard_unless_it_hands_over() -> None:
    raft = raft_of(3, check_quorum=True)
    raft.step(Message(Kind.HEARTBEAT, 2, 1, 1))
    carry_out(raft)
    asked = Message(Kind.VOTE, 3, 1, 2, index=9, log_term=1)
    raft.step(asked)
    assert (raft.term, carry_out(raft)) == (1, ())
    raft.step(Message(Kind.VOTE, 3, 1, 2, index=9, log_term=1, is_transfer=True))
    [answer] = carry_out(raft)
    assert (answer.kind, answer.refused, raft.vote) == (Kind.VOTE_ANSWER, False, 3)


def test_a_transfer_waits_until_the_other_has_all() -> None:
    """Thesis, 3.10."""
    raft = raft_of(3)
    elect(raft)
    store(raft, 2, 2, 3)
    raft.propose(b"one more")
    carry_out(raft)
    raft.transfer(2)
    with pytest.raises(Dropped, match="handed over"):
        raft.propose(b"not now")
    assert all(message.kind != Kind.TIMEOUT_NOW for message in carry_out(raft))
    raft.step(Message(Kind.APPEND_ANSWER, 2, 1, raft.term, index=3))
    assert [message.receiver for message in carry_out(raft) if message.kind == Kind.TIMEOUT_NOW] == [2]


def test_a_read_is_answered_when_a_majority_has_heard_the_leader_since() -> None:
    """Thesis, 6.4."""
    raft = raft_of(3)
    elect(raft)
    raft.read(b"too early")
    carry_out(raft)
    store(raft, 2, 2)
    asked = [message for message in (*raft.outbox, *carry_out(raft)) if message.kind == Kind.HEARTBEAT]
    raft.read(b"second")
    asked += [message for message in carry_out(raft) if message.kind == Kind.HEARTBEAT]
    assert asked[-1].read == b"second"
    raft.step(Message(Kind.HEARTBEAT_ANSWER, 3, 1, raft.term, read=b"second"))
    assert raft.output().reads == ((b"too early", 2), (b"second", 2)), "and with it those before"


def test_who_lost_its_vote_tells_a_candidate_that_does_not_know_it() -> None:
    """Of four voters the second is dead for good. The fourth alone knows that its own vote went, and its log is the
    longest: it stands no more, and three of four votes cannot be had without it. Two of three can."""
    demotion = Entry(1, 2, encoded(Proposal((Change(ChangeKind.LEARNER, 4),))), EntryKind.CHANGE)
    raft = raft_of(4, demotion)
    raft.campaign()
    carry_out(raft)
    raft.step(Message(Kind.VOTE_ANSWER, 3, 1, raft.term))
    raft.step(Message(Kind.VOTE_ANSWER, 4, 1, raft.term, refused=True, commit=2, hint=1))
    carry_out(raft)
    assert (raft.role, raft.log.committed) == (Role.FOLLOWER, 2)
    assert raft.configuration.voters == {1, 2, 3}
    raft.campaign()
    carry_out(raft)
    raft.step(Message(Kind.VOTE_ANSWER, 3, 1, raft.term))
    assert raft.role == Role.LEADER


@pytest.mark.parametrize(("commit", "term"), [(2, 2), (3, 1), (2, 0)])
def test_what_is_committed_of_another_log_is_not_learnt_from_a_refusal(commit: int, term: int) -> None:
    raft = raft_of(3, Entry(1, 2))
    raft.campaign()
    carry_out(raft)
    raft.step(Message(Kind.VOTE_ANSWER, 3, 1, raft.term, refused=True, commit=commit, hint=term))
    assert (raft.role, raft.log.committed) == (Role.CANDIDATE, 1)


def test_a_refusal_names_the_last_entry_that_is_committed() -> None:
    raft = raft_of(3, Entry(1, 2), Entry(1, 3), check_quorum=False)
    raft.step(Message(Kind.HEARTBEAT, 2, 1, 1, commit=2))
    carry_out(raft)
    raft.step(Message(Kind.VOTE, 3, 1, 2, index=2, log_term=1))
    [answer] = carry_out(raft)
    assert (answer.refused, answer.commit, answer.hint) == (True, 2, 1)


def test_who_was_given_a_vote_learns_it_from_who_asks_for_that() -> None:
    """It has the longest log, and takes itself for a learner, so that nobody could win."""
    promotion = Entry(1, 2, encoded(Proposal((Change(ChangeKind.VOTER, 1),))), EntryKind.CHANGE)
    raft = raft_of(3, promotion, Entry(2, 3), term=2)
    raft.configuration = Configuration(voters=frozenset({2, 3}), learners=frozenset({1}))
    raft.step(Message(Kind.VOTE, 2, 1, 3, index=2, log_term=1, commit=2, hint=1))
    [answer] = carry_out(raft)
    assert answer.refused
    assert raft.configuration.voters == {1, 2, 3}
    raft.campaign()
    assert raft.role == Role.CANDIDATE


def test_a_leader_that_sleeps_between_heartbeats_says_what_one_says_that_wakes_for_each_tick() -> None:
    def said(*, sleeps: bool) -> list[tuple[int, Kind]]:
        raft = raft_of(3, heartbeat_ticks=2, quorum_ticks=7, check_quorum=True)
        elect(raft)
        told: list[tuple[int, Kind]] = []
        tick = 0
        while tick < 30 and raft.role == Role.LEADER:
            left = raft.ticks_left if sleeps else 1
            raft.pass_ticks(left - 1)
            raft.tick()
            tick += left
            sent = carry_out(raft)
            if tick < 9 and any(message.kind == Kind.HEARTBEAT for message in sent):
                raft.step(Message(Kind.HEARTBEAT_ANSWER, 2, 1, raft.term))
                sent += carry_out(raft)
            told += [(tick, message.kind) for message in sent]
        return [*told, (tick, Kind.VOTE)]

    assert said(sleeps=True) == said(sleeps=False)
    assert [tick for tick, kind in said(sleeps=True) if kind == Kind.HEARTBEAT] == [
        tick for tick in range(2, 21, 2) for _ in range(2)
    ]
    assert said(sleeps=True)[-1] == (21, Kind.VOTE), "the third look finds nobody"


def test_a_heartbeat_wants_an_answer_from_whom_the_leader_has_to_hear() -> None:
    """Of those that have all entries it is enough to hear once between two looks at the quorum (thesis, 6.2)."""
    raft = raft_of(3, quorum_ticks=4, check_quorum=True, spares_answers=True)
    elect(raft)
    store(raft, raft.log.last_index, 2, 3)

    def wanted(ticks: int = 1) -> list[set[int]]:
        told = []
        for _ in range(ticks):
            raft.tick()
            sent = [message for message in carry_out(raft) if message.kind == Kind.HEARTBEAT]
            told.append({message.receiver for message in sent if not message.wants_no_answer})
            for node in told[-1]:
                raft.step(Message(Kind.HEARTBEAT_ANSWER, node, 1, raft.term))
        return told

    first = wanted(4)
    assert first[:3] == [set(), set(), set()], "they have just said something"
    assert first[3:] + wanted(7) == [{2, 3}, set(), set(), set()] * 2, "one word between two looks"
    assert raft.role == Role.LEADER
    raft.propose(b"x")
    store(raft, raft.log.last_index, 2)
    assert wanted() == [{2, 3}], "the look is due"
    assert wanted() == [{3}], "it has not got all"
    store(raft, raft.log.last_index, 3)
    raft.read(b"7")
    asked = [message.wants_no_answer for message in carry_out(raft) if message.read]
    assert asked == [False, False], "a read waits for answers"


def test_a_leader_that_looks_seldom_at_its_quorum_votes_for_nobody_meanwhile() -> None:
    raft = raft_of(3, election_ticks=4, quorum_ticks=8, check_quorum=True)
    elect(raft)
    for _ in range(7):
        raft.tick()
    carry_out(raft)
    for kind in (Kind.PRE_VOTE, Kind.VOTE):
        raft.step(Message(kind, 2, 1, raft.term + 1, index=raft.log.last_index, log_term=raft.term))
        assert (raft.role, carry_out(raft)) == (Role.LEADER, ())


def test_who_is_asked_for_no_answer_gives_none() -> None:
    raft = raft_of(3, number=2)
    raft.step(Message(Kind.HEARTBEAT, 1, 2, 1, wants_no_answer=True))
    assert carry_out(raft) == ()
    raft.step(Message(Kind.HEARTBEAT, 1, 2, 1))
    assert [message.kind for message in carry_out(raft)] == [Kind.HEARTBEAT_ANSWER]


def test_times_can_be_stretched_at_any_moment() -> None:
    raft = raft_of(3, election_ticks=4)
    raft.pass_ticks(2)
    assert raft.ticks_left == 2
    raft.use(Settings(election_ticks=12))
    assert raft.ticks_left == 10
    raft.use(Settings(election_ticks=1))
    assert raft.ticks_left == 1, "it is over already"
