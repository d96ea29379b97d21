"""One circuit breaker for each member: who asks one that does not answer is told so at once, and it is left in peace.

The rule is ``abi.breaker``'s; here is what a failure of a member is. It is one if no connection came to be, if it broke
before the answer, and if there was no answer in time. A refusal by name is an answer. A caller that was cancelled says
nothing of the member, and gives its place back.

Breakers stand before *questions*: those of people, and their repetitions. What keeps the cluster together, Raft's
messages and the probes of membership, dials as before, with short pauses of its own (``reach``). So a breaker neither
delays an election nor a member's return: whoever connects, and whichever side dialled, is not to be left alone any
longer, and its breaker closes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from abi.breaker import Breaker, Permit
from abi.errors import NodeUnreachable, Timeout
from abid.cluster.refusal import PeerRefused
from abid.cluster.requests import PeerSaidNo

log = logging.getLogger(__name__)

FAILURES: Final = (NodeUnreachable, PeerRefused, Timeout)
"""Of the member; whatever else is raised is a fault of ours, or nobody's."""


class BreakerOpen(NodeUnreachable):
    """Nothing was dialled or sent. The message says when the next try is let through."""


class Guard:
    """A member's breaker, and why it was tried in vain last."""

    def __init__(self) -> None:
        self.rule = Breaker()
        self.why = ""


class Breakers:
    """By node. ``now`` is a monotonic clock in nanoseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._guards: dict[str, Guard] = {}

    @property
    def nodes(self) -> set[str]:
        """Who was ever asked, and is not forgotten."""
        return set(self._guards)

    @contextmanager
    def guarding(self, node: str) -> Iterator[None]:
        """Around one question to this member. Raises BreakerOpen if it is to be left alone now."""
        guard = self._guards.setdefault(node, Guard())
        rule, permit = guard.rule, self._admitted(node, guard)
        was = rule.name(self._now())
        try:
            yield
        except PeerSaidNo:
            rule.succeeded(permit)
            raise
        except FAILURES as error:
            guard.why = error.message
            rule.failed(permit, self._now())
            raise
        except BaseException:
            rule.abandoned(permit)
            raise
        else:
            rule.succeeded(permit)
        finally:
            if guard.rule is rule:  # and not another one, since it connected meanwhile
                self._tell(node, guard, was, rule.name(self._now()))

    def on_connected(self, node: str) -> None:
        """It is there: what failed before says nothing any more."""
        guard = self._guards.get(node)
        if guard is None:
            return
        now = self._now()
        was = guard.rule.name(now)
        if was == "closed":
            permit = guard.rule.admit(now)
            assert isinstance(permit, Permit)
            guard.rule.succeeded(permit)
        else:
            guard.rule = Breaker()
            self._tell(node, guard, was, "closed")

    def forget(self, node: str) -> None:
        """It is no member any more."""
        self._guards.pop(node, None)

    def described(self, node: str) -> dict[str, str | int]:
        """What ``Breaker.described`` says of it; of one that was never asked, the same as of one that answers."""
        guard = self._guards.get(node)
        return (Breaker() if guard is None else guard.rule).described(self._now())

    def _admitted(self, node: str, guard: Guard) -> Permit:
        answer = guard.rule.admit(self._now())
        if isinstance(answer, Permit):
            return answer
        state = guard.rule.name(self._now())
        raise BreakerOpen(
            f"the circuit breaker of node {node} is {state}, and lets the next try through in "
            f"{answer.retry_after_ns / 1e9:.1f} s; the last one failed: {guard.why}",
            hint="`abi network list` shows it; it closes at once when that host connects",
        )

    def _tell(self, node: str, guard: Guard, was: str, now: str) -> None:
        if was == now:
            return
        if now == "open":
            log.warning("the circuit breaker of node %s is open: %s", node, guard.why)
        elif now == "closed":
            log.info("the circuit breaker of node %s is closed: it answers again", node)
