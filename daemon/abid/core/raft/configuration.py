"""Who belongs to the cluster, and in which way: voters, learners, and both majorities while voters change.

One voter may come or go in a simple change, since any majority before and any after share a member (thesis, 4.1). More
go through a joint configuration (thesis, 4.3): ``enter_joint``, later ``leave_joint``. Learners get the log and do not
vote (thesis, 4.2.1). Values, never changed in place: a change that turns out wrong has changed nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from abi.errors import AbiError

NOBODY: frozenset[int] = frozenset()


class Why(enum.Enum):
    """What is wrong with a change."""

    IS_JOINT = "the configuration is joint: the change that is under way has to end first"
    IS_NOT_JOINT = "the configuration is not joint: there is nothing to leave"
    NO_VOTER_YET = "a configuration without voters cannot become joint"
    NO_VOTER_LEFT = "no voter would be left"
    MORE_THAN_ONE = "more than one voter would change, which takes a joint configuration"


class ConfigurationError(AbiError):
    """A change that cannot be. ``why`` says for what reason."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class ChangeKind(enum.IntEnum):
    VOTER = 0
    LEARNER = 1
    REMOVE = 2
    UPDATE = 3
    """Says something about a member and leaves the configuration alone."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One step of a change. Node 0 is nobody: the step does nothing."""

    kind: ChangeKind
    node: int


class Configuration(msgspec.Struct, frozen=True):
    """``outgoing`` are the voters of before, while the configuration is joint; else empty."""

    voters: frozenset[int] = NOBODY
    outgoing: frozenset[int] = NOBODY
    learners: frozenset[int] = NOBODY
    learners_next: frozenset[int] = NOBODY
    """Still voters in ``outgoing``; learners when the joint configuration is left."""
    auto_leave: bool = False
    """The leader proposes to leave as soon as the joint configuration has been applied."""

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def all_voters(self) -> frozenset[int]:
        """Of both majorities."""
        return self.voters | self.outgoing

    @property
    def members(self) -> frozenset[int]:
        return self.voters | self.outgoing | self.learners

    def simple(self, changes: Iterable[Change]) -> Configuration:
        """At most one voter differs afterwards. Raises ConfigurationError."""
        if self.is_joint:
            raise ConfigurationError(Why.IS_JOINT)
        changed = self._with(changes)
        if len(self.voters ^ changed.voters) > 1:
            raise ConfigurationError(Why.MORE_THAN_ONE)
        return changed

    def enter_joint(self, changes: Iterable[Change], *, auto_leave: bool) -> Configuration:
        """From here on both majorities decide. Raises ConfigurationError."""
        if self.is_joint:
            raise ConfigurationError(Why.IS_JOINT)
        if not self.voters:
            raise ConfigurationError(Why.NO_VOTER_YET)
        joint = msgspec.structs.replace(self, outgoing=self.voters, auto_leave=auto_leave)
        return joint._with(changes)

    def leave_joint(self) -> Configuration:
        """The voters of before are gone. Raises ConfigurationError."""
        if not self.is_joint:
            raise ConfigurationError(Why.IS_NOT_JOINT)
        return Configuration(voters=self.voters, learners=self.learners | self.learners_next)

    def _with(self, changes: Iterable[Change]) -> Configuration:
        voters, learners, later = set(self.voters), set(self.learners), set(self.learners_next)
        for change in changes:
            node = change.node
            if not node or change.kind == ChangeKind.UPDATE:
                continue
            for group in (voters, learners, later):
                group.discard(node)
            if change.kind == ChangeKind.VOTER:
                voters.add(node)
            elif change.kind == ChangeKind.LEARNER:
                # Who votes in the majority of before cannot be a learner at the same time.
                (later if node in self.outgoing else learners).add(node)
        if not voters:
            raise ConfigurationError(Why.NO_VOTER_LEFT)
        return msgspec.structs.replace(
            self, voters=frozenset(voters), learners=frozenset(learners), learners_next=frozenset(later)
        )
