"""The seed's row "Circuit breaker", as public API (the rule and its past faults: tests/lib/test_breaker.py)."""

from __future__ import annotations

import inspect

import pytest

from abi.network import CircuitBreaker, CircuitOpen

MS = 1_000_000


class Peer:
    """Something to call, and the clock beside it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.well = False
        self.dialled = 0

    def clock(self) -> int:
        return self.now_ns

    def ask(self) -> str:
        self.dialled += 1
        if not self.well:
            raise ConnectionRefusedError
        return "answer"


def refused(breaker: CircuitBreaker, peer: Peer) -> bool:
    dialled = peer.dialled
    with pytest.raises((CircuitOpen, ConnectionRefusedError)) as caught:
        breaker.call(peer.ask)
    assert (caught.type is CircuitOpen) == (peer.dialled == dialled)
    return caught.type is CircuitOpen


def test_the_seeds_names_and_defaults() -> None:
    parameters = inspect.signature(CircuitBreaker).parameters
    names = ("failure_threshold", "reset_timeout_ms", "half_open_max_calls")
    assert [parameters[name].default for name in names] == [5, 30_000, 3]


def test_five_failures_then_refused_at_once_without_dialling() -> None:
    peer = Peer()
    breaker = CircuitBreaker(clock=peer.clock)
    assert [refused(breaker, peer) for _ in range(5)] == [False] * 5
    assert [refused(breaker, peer) for _ in range(100)] == [True] * 100
    assert (peer.dialled, breaker.state) == (5, "open")


def test_after_thirty_seconds_success_closes_it() -> None:
    peer = Peer()
    breaker = CircuitBreaker(clock=peer.clock)
    for _ in range(5):
        refused(breaker, peer)
    peer.now_ns = 30_000 * MS - 1
    assert refused(breaker, peer)
    peer.now_ns += 1
    peer.well = True
    states = []
    for _ in range(3):
        assert breaker.call(peer.ask) == "answer"
        states.append(breaker.state)
    assert states == ["half-open", "half-open", "closed"]


def test_at_most_three_probes_at_a_time() -> None:
    peer = Peer()
    breaker = CircuitBreaker(clock=peer.clock)
    for _ in range(5):
        refused(breaker, peer)
    peer.now_ns, peer.well, seen = 30_000 * MS, True, 0

    def probe(depth: int) -> None:
        """Calls within calls: all of them are under way at once."""
        nonlocal seen
        seen = max(seen, depth)
        breaker.call(probe, depth + 1)

    with pytest.raises(CircuitOpen):
        breaker.call(probe, 1)
    assert seen == 3


def test_a_failed_probe_opens_it_again() -> None:
    peer = Peer()
    breaker = CircuitBreaker(clock=peer.clock)
    for _ in range(5):
        refused(breaker, peer)
    peer.now_ns = 30_000 * MS
    assert not refused(breaker, peer)
    assert refused(breaker, peer)
    assert breaker.state == "open"
