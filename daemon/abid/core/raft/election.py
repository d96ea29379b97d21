"""Who leads (paper, 5.2 and 5.4.1; thesis, 3.10, 6.2 and 9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abid.core.raft import change, quorum, replication
from abid.core.raft.interface import Role
from abid.core.raft.messages import FROM_LEADERS, NOBODY, Kind, Message

if TYPE_CHECKING:
    from abid.core.raft.raft import Raft

RESTING_TICKS: Final = 50
"""Of who has no vote: a look now and then."""
_ANSWER = {Kind.VOTE: Kind.VOTE_ANSWER, Kind.PRE_VOTE: Kind.PRE_VOTE_ANSWER}


def ticks_left(raft: Raft) -> int:
    """In so many ticks we stand for election, if nothing happens meanwhile; who never stands looks again then."""
    if not raft.may_lead:
        return RESTING_TICKS
    left = max(1, raft.election_timeout - raft.since_heard)
    return min(left, raft.standing_in) if raft.standing_in else left


def pass_ticks(raft: Raft, count: int) -> None:
    """Ticks in which we do not stand."""
    raft.since_heard += count
    raft.standing_in = max(0, raft.standing_in - count)


def tick(raft: Raft) -> None:
    """A voter that heard of no leader for long enough stands for election; or when it is its turn by rank."""
    raft.since_heard += 1
    is_our_turn = raft.standing_in == 1
    raft.standing_in = max(0, raft.standing_in - 1)
    if raft.may_lead and (is_our_turn or raft.since_heard >= raft.election_timeout):
        raft.since_heard = raft.standing_in = 0
        raft.campaign()


def leader_lost(raft: Raft, node: int) -> None:
    """The leader's connection closed: forget it, and stand for election when it is our turn, which comes long before
    the election timeout. A killed leader's connections close at once and everywhere, and where all stood at once they
    would split the votes; by lot they would wait for nothing.

    Safe, since who stands and when decides nothing (paper, 5.2: safety does not depend on timing). It does not unseat a
    leader that lives and lost only this one connection: whoever still hears it ignores us (check-quorum), no term has
    begun by our asking (pre-vote), and its next word makes us follow it again. Without both we forget and wait. Reads
    by lease count on nobody forgetting: there this does nothing. If our turn brings nothing, because others noticed
    later than we did or are ahead of us, the next in rank tries, and after the election timeout so do we.
    """
    settings = raft.settings
    if raft.role != Role.FOLLOWER or node != raft.leader or settings.reads_by_lease:
        return
    raft.forget_leader()
    if settings.pre_vote and settings.check_quorum and raft.may_lead:
        raft.standing_in = 1 + rank(raft, node) * settings.rank_ticks


def rank(raft: Raft, lost: int) -> int:
    """Our place among the voters that are left, by number, in a circle behind the lost one: so all agree on the order
    without a word, and it is not always the same node's turn first."""
    others = sorted(raft.configuration.all_voters - {lost}, key=lambda node: (node < lost, node))
    return others.index(raft.number)


def stand(raft: Raft, *, pre_vote: bool, is_transfer: bool = False) -> None:
    """With ``pre_vote`` ask first, in a term that is not begun (thesis, 9.6). A change that is committed and not
    applied comes first: after it we may be no voter."""
    if raft.role == Role.LEADER or not raft.may_lead or change.is_waiting(raft):
        return
    if pre_vote:
        raft.role, raft.leader = Role.PRE_CANDIDATE, NOBODY
        raft.votes.clear()
        kind, term = Kind.PRE_VOTE, raft.term + 1
    else:
        raft.become(Role.CANDIDATE, raft.term + 1)
        raft.vote = raft.number
        kind, term = Kind.VOTE, raft.term
    for node in sorted(raft.configuration.all_voters):
        if node == raft.number:
            # Our own vote counts when it is on disk, like everybody's.
            raft.send(_ANSWER[kind], node, term=term)
        else:
            last = {"index": raft.log.last_index, "log_term": raft.log.last_term}
            raft.send(kind, node, term=term, **last, **_what_is_committed(raft), is_transfer=is_transfer)


def stand_at_once(raft: Raft) -> None:
    """The leader hands over to us: no pre-vote, and the others need not have missed it."""
    if raft.role == Role.FOLLOWER:
        stand(raft, pre_vote=False, is_transfer=True)


def admit(raft: Raft, message: Message) -> bool:
    """Bring terms together (paper, 5.1). False: there is nothing more to do with this message."""
    if message.term > raft.term:
        return _admit_newer(raft, message)
    if 0 < message.term < raft.term:
        _answer_older(raft, message)
        return False
    return True


def _admit_newer(raft: Raft, message: Message) -> bool:
    kind = message.kind
    if kind in _ANSWER and not message.is_transfer and _hears_a_leader(raft):
        return False  # who lost touch does not unseat a leader that others hear (thesis, 6.2)
    if kind == Kind.PRE_VOTE or (kind == Kind.PRE_VOTE_ANSWER and not message.refused):
        return True  # that term has not begun, and perhaps never will
    raft.become(Role.FOLLOWER, message.term, message.sender if kind in FROM_LEADERS else NOBODY)
    return True


def _hears_a_leader(raft: Raft) -> bool:
    """A leader hears itself: it counts the ticks until it looks at its quorum, which may be more."""
    settings = raft.settings
    is_heard = raft.role == Role.LEADER or raft.since_heard < settings.election_ticks
    return settings.check_quorum and raft.leader != NOBODY and is_heard


def _answer_older(raft: Raft, message: Message) -> None:
    """Tell a leader or a candidate of an earlier term that it is one (paper, figure 2: "reply false if term <
    currentTerm"). Otherwise a node whose term is ahead, which it may be after a partition, could neither follow (its
    term is higher) nor win (others hear their leader)."""
    if message.kind in (Kind.APPEND, Kind.HEARTBEAT):
        raft.send(Kind.APPEND_ANSWER, message.sender)
    elif message.kind in _ANSWER:
        raft.send(_ANSWER[message.kind], message.sender, refused=True)


def answer(raft: Raft, message: Message) -> None:
    """Give our vote, or not. Learners give theirs as well: that they are voters by now may be known to the candidate
    and not yet to them."""
    is_pre_vote = message.kind == Kind.PRE_VOTE
    is_free = (
        raft.vote == message.sender
        or (raft.vote == NOBODY and raft.leader == NOBODY)
        or (is_pre_vote and message.term > raft.term)
    )
    if is_free and raft.log.is_current(message.index, message.log_term):
        raft.send(_ANSWER[message.kind], message.sender, term=message.term)
        if not is_pre_vote:
            raft.since_heard = raft.standing_in = 0
            raft.vote = message.sender
    else:
        raft.send(_ANSWER[message.kind], message.sender, refused=True, **_what_is_committed(raft))
        _learn_what_is_committed(raft, message)
        if raft.role == Role.CANDIDATE and message.kind == Kind.VOTE:
            _break_tie(raft, message.sender)


def _break_tie(raft: Raft, other: int) -> None:
    """Two stand in one term, and neither can vote for the other: maybe nobody wins. Instead of an election timeout
    later, and then perhaps together once more, the lower number stands again at the next tick, and the higher one when
    that had time to be over. Who hears of a winner before its turn follows that one; and its asking would unseat nobody
    (see ``leader_lost``)."""
    if raft.settings.pre_vote and raft.settings.check_quorum:
        turn = 1 if raft.number < other else 1 + raft.settings.rank_ticks
        raft.standing_in = max(raft.standing_in, turn)


def _what_is_committed(raft: Raft) -> dict[str, int]:
    """Said with a vote that is asked for, and with one that is refused. Changes count when they are applied, so that
    what is committed may decide who can win, and those who could may not know it:

    - A change took the vote of who has the longest log, and is known as committed to that one alone. It stands no more,
      and refuses its vote to all that are behind it, who count by a majority that is not there any more.
    - A change gave a vote to who has the longest log and does not know it. It does not stand, and nobody else can win.

    TiKV's raft-rs tells for the same reason."""
    if not raft.settings.votes_tell_commit:
        return {}
    return {"commit": raft.log.committed, "hint": raft.log.term_of(raft.log.committed) or 0}


def _learn_what_is_committed(raft: Raft, message: Message) -> None:
    """What another has committed of the log that is ours, too (paper, 5.3: log matching). Who stood then stands anew,
    under the next configuration, if it is another."""
    log = raft.log
    if raft.role == Role.LEADER or log.restoring is not None or message.commit <= log.committed:
        return
    if log.term_of(message.commit) == message.hint:
        log.commit_to(message.commit)
        if raft.role != Role.FOLLOWER and change.is_waiting(raft):
            raft.become(Role.FOLLOWER, raft.term)


def count(raft: Raft, message: Message) -> None:
    """A vote came, for the election that we stand in."""
    expected = {Role.CANDIDATE: Kind.VOTE_ANSWER, Role.PRE_CANDIDATE: Kind.PRE_VOTE_ANSWER}.get(raft.role)
    if message.kind != expected:
        return
    if message.refused:
        _learn_what_is_committed(raft, message)
        if raft.role == Role.FOLLOWER:
            return
    raft.votes.setdefault(message.sender, not message.refused)
    configuration = raft.configuration
    state = quorum.counted_by_both(configuration.voters, configuration.outgoing, raft.votes)
    if state == quorum.Vote.LOST:
        raft.become(Role.FOLLOWER, raft.term)
    elif state == quorum.Vote.WON and raft.role == Role.PRE_CANDIDATE:
        stand(raft, pre_vote=False)
    elif state == quorum.Vote.WON:
        replication.lead(raft)


def follow(raft: Raft, message: Message) -> bool:
    """Somebody leads in our term. False for a leader, which can only have heard itself."""
    if raft.role == Role.LEADER:
        return False
    if raft.role != Role.FOLLOWER:
        raft.become(Role.FOLLOWER, message.term, message.sender)
    raft.since_heard = raft.standing_in = 0
    raft.leader = message.sender
    return True


def transfer(raft: Raft, node: int) -> None:
    """Hand leadership to a voter, as soon as it has all that we have (thesis, 3.10). Nothing is proposed meanwhile;
    after an election timeout we go on ourselves."""
    progress = raft.members.get(node)
    if raft.role != Role.LEADER or progress is None or node in (raft.number, raft.transfer_to):
        return
    if node not in raft.configuration.all_voters:
        return
    raft.since_heard = 0
    raft.transfer_to = node
    if progress.match == raft.log.last_index:
        raft.send(Kind.TIMEOUT_NOW, node)
    else:
        replication.send_append(raft, node)
