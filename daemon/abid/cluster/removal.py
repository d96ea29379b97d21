"""Whether this host was sent away: who says so, and who has to.

1. The cluster agrees on it. Each member that knows of it ends the connection with us by the word REVOKED, and answers
   each further one so: what was agreed on may never come to us as such.
2. One member's word is not enough, be its certificate as good as it may: else a single one that was broken into, or
   that is out of its mind, could send everybody away. A majority of the voters, as far as we know them, is believed: it
   could have had the cluster agree on it. So is anybody who says what we know ourselves to be agreed on.
3. Until then this host is a member, dials the others on as it does after any connection that was lost, and shows who
   says otherwise. Who answers us again has taken back its word.

Doubts: who was away while all voters were replaced by others is never sure, and goes on asking, as often as it would
dial members that are down. `abi cluster leave --force` ends that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from abi.errors import AbiError
from abid.cluster.refusal import Code, Said, refused
from abid.core.cluster.voters import are_majority

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)


class Removal:
    """One member's view of it."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._told_by: set[str] = set()

    @property
    def told_by(self) -> list[str]:
        """The nodes that say so."""
        return sorted(self._told_by)

    def on_refused(self, node: str, error: AbiError) -> AbiError | None:
        """This member will not speak with us. Why we are a member no more, if that is so."""
        if not (isinstance(error, Said) and error.code == Code.REVOKED):
            return None
        if node not in self._told_by:
            self._told_by.add(node)
            log.warning("node %s says that this host was removed from the cluster", node)
        return self._confirmed()

    def on_answered(self, node: str) -> None:
        """It speaks with us, and did not only pick up the receiver."""
        self._told_by.discard(node)

    def keep(self, members: set[str]) -> None:
        """Of others nothing counts any more."""
        self._told_by &= members

    def _confirmed(self) -> AbiError | None:
        member = self._member
        if member.consensus.facts.is_revoked(member.node):
            return refused(Code.REVOKED, "the cluster has agreed on it")
        configuration = member.consensus.configuration
        told = {number for number in configuration.all_voters if member.node_of(number) in self._told_by}
        if not are_majority(configuration, told):
            return None
        return refused(Code.REVOKED, f"{len(told)} of {len(configuration.all_voters)} voters say so")
