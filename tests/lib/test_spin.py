"""When a caller looks for its answer rather than sleep."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from abi import spin
from abi.spin import LONGEST_NS, Spin

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(spin.os, "sched_getaffinity", lambda _: {0, 1})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def clock(monkeypatch: pytest.MonkeyPatch, step_ns: int) -> list[int]:
    """Each look at the clock takes so long. The list holds what it showed."""
    shown = [0]

    def look() -> int:
        shown.append(shown[-1] + step_ns)
        return shown[-1]

    monkeypatch.setattr(spin, "monotonic_ns", look)
    return shown


def test_a_look_in_vain_ends_it_and_a_quick_answer_brings_it_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0])
    shown = clock(monkeypatch, 50_000)
    assert one.is_worth_it
    one.look()
    assert not one.is_worth_it
    assert shown[-1] - shown[1] <= LONGEST_NS + 50_000
    one.slept(LONGEST_NS)
    assert not one.is_worth_it
    one.slept(LONGEST_NS - 1)
    assert one.is_worth_it


def test_an_answer_that_is_there_is_seen_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0])
    pair[1].send(b"x")
    shown = clock(monkeypatch, LONGEST_NS)
    one.look()
    assert one.is_worth_it
    assert len(shown) == 2, "one look at the clock, none in vain"


def test_it_looks_for_twice_the_usual_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0])
    one.slept(100_000)
    shown = clock(monkeypatch, 10_000)
    one.look()
    assert shown[-1] - shown[1] == 210_000


def test_on_one_processor_nobody_looks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spin.os, "sched_getaffinity", lambda _: {0})
    one = Spin(pair[0])
    one.slept(1)
    assert not one.is_worth_it
