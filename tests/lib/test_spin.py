"""When a caller looks for its answer rather than sleep."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from abi import spin
from abi.spin import Spin

LONGEST_NS = 1_000_000

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


def test_looks_in_vain_give_way_to_sleeping(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0], LONGEST_NS)
    shown = clock(monkeypatch, 50_000)
    slept = []
    for _ in range(8):
        before = shown[-1]
        one.look()
        assert shown[-1] - before <= LONGEST_NS + 100_000, "a look has an end"
        slept.append(0)
        while not one.is_worth_it:
            one.slept(LONGEST_NS)
            slept[-1] += 1
    assert slept == [0, 2, 6, 14, 30, 62, 64, 64]


def test_a_quick_end_of_a_sleep_brings_the_looks_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0], LONGEST_NS)
    clock(monkeypatch, 50_000)
    for _ in range(2):
        one.look()
    assert not one.is_worth_it
    one.slept(LONGEST_NS - 1)
    assert one.is_worth_it


def test_what_is_found_forgives_what_was_in_vain(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0], LONGEST_NS)
    clock(monkeypatch, 50_000)
    one.look()
    pair[1].send(b"x")
    one.look()
    pair[0].recv(1)
    one.look()
    assert one.is_worth_it


def test_an_answer_that_is_there_is_seen_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0], LONGEST_NS)
    pair[1].send(b"x")
    shown = clock(monkeypatch, LONGEST_NS)
    one.look()
    assert one.is_worth_it
    assert len(shown) == 2, "one look at the clock, none in vain"


def test_it_looks_for_four_times_the_usual_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Spin(pair[0], LONGEST_NS)
    one.slept(100_000)
    shown = clock(monkeypatch, 10_000)
    one.look()
    assert shown[-1] - shown[1] == 410_000


def test_on_one_processor_nobody_looks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spin.os, "sched_getaffinity", lambda _: {0})
    one = Spin(pair[0], LONGEST_NS)
    one.slept(1)
    assert not one.is_worth_it
