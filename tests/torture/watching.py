"""What the hosts of a cluster say of themselves over time, and what is counted in it: who led, in which terms, who was
held for dead.

A series is what all hosts said, in the order in which it was heard. Terms are kept, so an election that came and went
between two questions still shows in them; who was called dead meanwhile shows in the daemons' logs.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from abi.errors import AbiError

JOIN_S = 60.0
"""For the thread to end: a daemon that is frozen answers nothing until its question is given up."""
_CALLED_DEAD = re.compile(r"member (\d+) is dead")


class Seen(NamedTuple):
    """What one host said."""

    at: float
    """Monotonic, in seconds, when it was asked."""
    host: int
    term: int
    leader: str | None
    """A node; None: it knows of none."""
    states: Mapping[str, str]
    """By node: alive, suspect, dead, left."""


class Reign(NamedTuple):
    """A node led in a term."""

    term: int
    leader: str


def seen(at: float, host: int, status: Mapping[str, Any]) -> Seen:
    """From what `network-status` says."""
    states = {node["id"]: node["state"] for node in status.get("nodes", ())}
    return Seen(at, host, int(status["term"]), status["leader"], states)


def reigns(series: Iterable[Seen]) -> list[Reign]:
    """In the order of their terms. Fails where two led in one: Raft's first promise (paper, figure 3)."""
    leaders: dict[int, str] = {}
    for one in series:
        if one.leader is not None:
            other = leaders.setdefault(one.term, one.leader)
            assert other == one.leader, f"{other} and {one.leader} both lead in term {one.term}"
    return [Reign(term, leaders[term]) for term in sorted(leaders)]


def changes(series: Iterable[Seen]) -> int:
    """How often leadership began anew after the first leader that was seen, also with the same leader again."""
    return max(0, len(reigns(series)) - 1)


def terms_gained(series: Sequence[Seen]) -> int:
    """Elections that were begun: the highest term, less the highest in the hosts' first words."""
    first: dict[int, int] = {}
    for one in series:
        first.setdefault(one.host, one.term)
    return max((one.term for one in series), default=0) - max(first.values(), default=0)


def said_of(series: Iterable[Seen], state: str) -> set[tuple[int, str]]:
    """Which host held which node for this."""
    return {(one.host, node) for one in series for node, held in one.states.items() if held == state}


def deaths_in(log: str) -> list[int]:
    """The members that a daemon's log calls dead, in order."""
    return [int(number) for number in _CALLED_DEAD.findall(log)]


class Watch:
    """Asks every host so often, in a thread of its own. A host that does not answer says nothing."""

    def __init__(self, ask: Callable[[int], Mapping[str, Any]], hosts: Iterable[int], every_s: float = 0.1) -> None:
        self._ask = ask
        self._hosts = list(hosts)
        self._every_s = every_s
        self._series: list[Seen] = []
        self._is_over = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(JOIN_S)
        assert not self._thread.is_alive(), "the watch does not end"
        if self._failed is not None:
            raise self._failed

    @property
    def series(self) -> list[Seen]:
        """All that was said until now."""
        return list(self._series)

    def since(self, at: float) -> list[Seen]:
        """What was said after a moment (monotonic)."""
        return [one for one in self._series if one.at >= at]

    def _run(self) -> None:
        try:
            while not self._is_over.wait(self._every_s):
                for host in self._hosts:
                    self._look(host)
        except BaseException as error:
            self._failed = error

    def _look(self, host: int) -> None:
        at = time.monotonic()
        try:
            status = self._ask(host)
        except (AbiError, OSError):
            return
        if status.get("joined"):
            self._series.append(seen(at, host, status))
