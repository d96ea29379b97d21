"""What the others remember of a member: how a disk that was restored from an older copy gives itself away.

Raft holds only while nobody forgets what it promised: a vote, or entries that it said it has (paper, figure 2). A disk
that was put back to an earlier day has forgotten, and its owner cannot know. Those whom it promised to do: each notes
the latest promise of every member, and when one comes back and says where it stands, it may not stand behind that.
(Viewstamped Replication Revisited, section 4.3, solves the same by a recovery protocol.) One that does is refused as
the voter that it was, just as though it had died, and joins under a new number, as a learner without any promises.

Doubts: it is noted in memory only, and by those who were promised something. A host restored while all of them are down
is not noticed; nobody but a copy of its disk elsewhere could.
"""

from __future__ import annotations

import msgspec

from abid.core.raft.messages import NOBODY, Kind, Message

_OF_A_TERM_TO_COME = (Kind.PRE_VOTE, Kind.PRE_VOTE_ANSWER)
"""They speak of a term that nobody has begun yet, and promise nothing."""


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """What a member says of itself on every new connection: how far its disk goes."""

    term: int
    vote: int
    last_index: int


class Promise(msgspec.Struct):
    """The latest of one member. ``last_index``: entries up to here it has, as it said in ``term``, whose leader alone
    may take from its log until that term is over, and takes nothing that it knows to agree."""

    term: int = 0
    voted_in: int = 0
    """The last term in which it voted for us."""
    last_index: int = 0


class Recollection:
    """Of ``number``: what it was promised, by whom. One entry for each node that ever spoke to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._promises: dict[int, Promise] = {}

    def note(self, message: Message) -> None:
        """What this message promises. It left when that was on its sender's disk, or was there long before."""
        if message.sender in (NOBODY, self.number) or message.kind in _OF_A_TERM_TO_COME:
            return
        promise = self._promises.setdefault(message.sender, Promise())
        if message.term > promise.term:
            promise.term, promise.last_index = message.term, 0
        if message.refused:
            return
        if message.kind == Kind.VOTE_ANSWER:
            promise.voted_in = max(promise.voted_in, message.term)
        elif message.kind == Kind.APPEND_ANSWER and message.term == promise.term:
            promise.last_index = max(promise.last_index, message.index)

    def missing(self, node: int, standing: Standing) -> str | None:
        """What this node promised and has forgotten, in words; None where nothing is missing as far as we know. To be
        asked before anything else that it says is listened to: with a new term it may look like new."""
        promise = self._promises.get(node)
        if promise is None:
            return None
        if standing.term < promise.term:
            return f"it was in term {promise.term} and now stands in term {standing.term}"
        if standing.term == promise.voted_in and standing.vote != self.number:
            return f"it voted for node {self.number} in term {promise.voted_in} and has no such vote now"
        if standing.term == promise.term and standing.last_index < promise.last_index:
            return f"it had entries up to {promise.last_index} and now ends at {standing.last_index}"
        return None

    def forget(self, node: int) -> None:
        """It is no member any more, and its number will not be used again."""
        self._promises.pop(node, None)
