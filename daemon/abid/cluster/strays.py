"""Members of another incarnation of our cluster that this host meets: somebody has recovered it, there or here.

They are refused. Nothing brings the two together by itself, so it is said on both sides, with what a person can do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from abi.wire import incarnations
from abid.cluster.certificates import Subject
from abid.cluster.refusal import Code

if TYPE_CHECKING:
    from abid.cluster.member import Member

log = logging.getLogger(__name__)

NODES_MAX: Final = 100
"""Who is met first is forgotten first."""
JOIN: Final = "`abi cluster leave --force`, then `abi cluster join` with a token of"


class Strays:
    """One member's view."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._met: dict[str, int] = {}
        """By node: its incarnation of the cluster."""

    def on_met(self, subject: Subject) -> None:
        """It was refused."""
        if self._met.pop(subject.node, None) != subject.incarnation:
            log.warning("node %s is of incarnation %s", subject.node, incarnations.name(subject.incarnation))
        self._met[subject.node] = subject.incarnation
        if len(self._met) > NODES_MAX:
            del self._met[next(iter(self._met))]

    def on_connected(self, node: str) -> None:
        """It is one of us again."""
        self._met.pop(node, None)

    def has(self, node: str) -> bool:
        """Whether this node was met last as one of another incarnation."""
        return node in self._met

    def notes(self) -> list[dict[str, Any]]:
        """For `abi network status`: one for each incarnation."""
        ours, found = self._member.credentials.subject.incarnation, []
        for theirs in sorted(set(self._met.values())):
            nodes = ", ".join(sorted(node for node, incarnation in self._met.items() if incarnation == theirs))
            found.append(_note(nodes, theirs, ours))
        return found


def _note(nodes: str, theirs: int, ours: int) -> dict[str, Any]:
    difference = incarnations.generation(theirs) - incarnations.generation(ours)
    if difference > 0:
        which = "which is newer: somebody recovered the cluster there"
        hint = f"on each host of this incarnation, {JOIN} theirs; or the other way round, if they are to come back here"
    elif difference < 0:
        which = "which is older: the cluster was recovered here, and goes on there"
        hint = f"on each of those hosts, {JOIN} this incarnation; or the other way round, if theirs is to stay"
    else:
        which = "neither newer nor older: the cluster was recovered on two hosts"
        hint = f"keep one of the two; on each host of the other, {JOIN} the one that stays"
    return {
        "code": str(Code.OTHER_INCARNATION),
        "message": f"{nodes}: of incarnation {incarnations.name(theirs)} of this cluster, {which}; ours is "
        f"{incarnations.name(ours)}, and the two refuse each other",
        "hint": hint,
    }
