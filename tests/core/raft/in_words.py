"""Members, messages and outputs as etcd's scripts write them down."""

from __future__ import annotations

from collections.abc import Iterator

from abid.core.raft.change import decoded
from abid.core.raft.configuration import ChangeKind, Configuration
from abid.core.raft.interface import Output, Role
from abid.core.raft.messages import Entry, EntryKind, HardState, Kind, Message, Snapshot
from abid.core.raft.progress import Mode, Progress

ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
KINDS = {
    Kind.VOTE: "MsgVote",
    Kind.VOTE_ANSWER: "MsgVoteResp",
    Kind.PRE_VOTE: "MsgPreVote",
    Kind.PRE_VOTE_ANSWER: "MsgPreVoteResp",
    Kind.APPEND: "MsgApp",
    Kind.APPEND_ANSWER: "MsgAppResp",
    Kind.HEARTBEAT: "MsgHeartbeat",
    Kind.HEARTBEAT_ANSWER: "MsgHeartbeatResp",
    Kind.SNAPSHOT: "MsgSnap",
    Kind.TIMEOUT_NOW: "MsgTimeoutNow",
    Kind.PROPOSE: "MsgProp",
}
MODES = {Mode.PROBE: "StateProbe", Mode.REPLICATE: "StateReplicate", Mode.SNAPSHOT: "StateSnapshot"}
LETTERS = {ChangeKind.VOTER: "v", ChangeKind.LEARNER: "l", ChangeKind.REMOVE: "r", ChangeKind.UPDATE: "u"}


def of_configuration(configuration: Configuration) -> str:
    def group(nodes: frozenset[int]) -> str:
        return f"({' '.join(map(str, sorted(nodes)))})"

    line = f"voters={group(configuration.voters)}"
    if configuration.is_joint:
        line += f"&&{group(configuration.outgoing)}"
    if configuration.learners:
        line += f" learners={group(configuration.learners)}"
    if configuration.learners_next:
        line += f" learners_next={group(configuration.learners_next)}"
    return line + " autoleave" if configuration.auto_leave else line


def of_progress(progress: Progress, *, learner: bool) -> str:
    line = f"{MODES[progress.mode]} match={progress.match} next={progress.next}"
    if learner:
        line += " learner"
    if progress.is_paused:
        line += " paused"
    if progress.snapshot:
        line += f" pendingSnap={progress.snapshot}"
    if not progress.is_active:
        line += " inactive"
    if progress.inflight:
        line += f" inflight={len(progress.inflight)}" + ("[full]" if progress.is_full else "")
    return line


def of_entry(entry: Entry) -> str:
    if entry.kind == EntryKind.NORMAL:
        return f'{entry.term}/{entry.index} EntryNormal "{entry.data.decode()}"'
    changes = [f"{LETTERS[change.kind]}{change.node}" for change in decoded(entry.data).changes]
    return " ".join([f"{entry.term}/{entry.index} EntryConfChange", *changes])


def of_snapshot(snapshot: Snapshot) -> str:
    configuration = snapshot.configuration
    groups = (
        ("Voters", configuration.voters),
        ("VotersOutgoing", configuration.outgoing),
        ("Learners", configuration.learners),
        ("LearnersNext", configuration.learners_next),
    )
    members = " ".join(f"{name}:[{' '.join(map(str, sorted(nodes)))}]" for name, nodes in groups)
    leaves = str(configuration.auto_leave).lower()
    return f"Index:{snapshot.index} Term:{snapshot.term} ConfState:{members} AutoLeave:{leaves}"


def of_hard_state(state: HardState) -> str:
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"HardState Term:{state.term}{vote} Commit:{state.commit}"


def of_message(message: Message) -> list[str]:
    line = (
        f"{message.sender}->{message.receiver} {KINDS[message.kind]} Term:{message.term} "
        f"Log:{message.log_term}/{message.index}"
    )
    if message.refused:
        line += f" Rejected (Hint: {message.hint})"
    if message.commit:
        line += f" Commit:{message.commit}"
    lines = [line]
    if len(message.entries) == 1:
        lines[0] += f" Entries:[{of_entry(message.entries[0])}]"
    elif message.entries:
        lines[0] += " Entries:["
        lines += [f"  {of_entry(entry)}" for entry in message.entries]
        lines.append("]")
    if message.snapshot is not None:
        lines.append(f"  Snapshot: {of_snapshot(message.snapshot)}")
    return lines


def of_output(output: Output) -> Iterator[str]:
    yield f"Ready MustSync={str(output.must_sync).lower()}:"
    if output.role is not None:
        yield f"Lead:{output.leader} State:{ROLES[output.role]}"
    if output.hard_state is not None:
        yield of_hard_state(output.hard_state)
    if output.entries:
        yield "Entries:"
        yield from map(of_entry, output.entries)
    if output.snapshot is not None:
        yield f"Snapshot {of_snapshot(output.snapshot)}"
    if output.committed:
        yield "CommittedEntries:"
        yield from map(of_entry, output.committed)
    if output.messages:
        yield "Messages:"
        for message in output.messages:
            yield from of_message(message)
