"""Waits, budgets and lots, without waiting."""

from __future__ import annotations

import statistics

import pytest

from abi.backoff import Backoff, Lots, Tries, is_retryable
from abi.errors import (
    AbiError,
    Busy,
    CircuitOpen,
    Denied,
    GetTimeoutError,
    NetworkDisabled,
    NodeUnreachable,
    QueueFullError,
    TaskTimedOut,
    Timeout,
    UsageError,
)

MS = 1_000_000
LOST = NodeUnreachable("gone")


def most() -> float:
    """A lot just below one: the longest wait."""
    return 1.0 - 2**-53


def test_ceilings_double_up_to_the_cap() -> None:
    policy = Backoff(base_ms=100, cap_ms=1000)
    assert [policy.ceiling_ns(retry) // MS for retry in range(6)] == [100, 200, 400, 800, 1000, 1000]
    assert policy.ceiling_ns(10**9) == 1000 * MS


def test_jitter_is_full() -> None:
    """Evenly from nothing to the ceiling: mean a half, deviation 1/√12, both within five standard errors."""
    lots = Lots(b"node", "test")
    waits = [Backoff(base_ms=1000).wait_ns(0, lots()) / (1000 * MS) for _ in range(10_000)]
    assert 0.0 <= min(waits) < 0.01
    assert 0.99 < max(waits) < 1.0
    assert abs(statistics.fmean(waits) - 0.5) < 5 * 0.2887 / 100
    assert abs(statistics.pstdev(waits) - 0.2887) < 5 * 0.2887 / 100


def test_past_fault_jitter_from_a_generator_seeded_alike_on_every_node() -> None:
    nodes = [Lots(node.to_bytes(4, "big"), "dial") for node in range(1000)]
    first = [lots() for lots in nodes]
    assert len(set(first)) == 1000
    # Spread, not only different: no tenth holds more than fifteen hundredths of them.
    assert max(sum(tenth / 10 <= lot < (tenth + 1) / 10 for lot in first) for tenth in range(10)) < 150


def test_lots_can_be_replayed_and_depend_on_every_word() -> None:
    drawn = [Lots(b"node", "dial", 7)() for _ in range(2)]
    assert drawn[0] == drawn[1]
    others = [Lots(b"node", "dial", 8), Lots(b"node", "probe", 7), Lots(b"edon", "dial", 7), Lots(b"noded", "ial", 7)]
    assert len({drawn[0], *(lots() for lots in others)}) == 5


def test_lots_are_splitmix64() -> None:
    """The reference sequence for the seed 1234567, as published with the algorithm's C code."""
    lots = Lots()
    lots._state = 1234567
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [lots() for _ in words] == [(word >> 11) / 2**53 for word in words]


def test_tries_end_with_the_retries() -> None:
    tries = Tries(Backoff(max_retries=3), most, 0)
    waits = [tries.on_failure(LOST, 0) for _ in range(4)]
    assert [wait if wait is None else round(wait / MS) for wait in waits] == [100, 200, 400, None]
    assert tries.retries == 3


def test_tries_end_with_the_budget() -> None:
    """A wait that would end after it is not begun."""
    policy = Backoff(max_retries=100, base_ms=100, cap_ms=100, budget_ms=1000)
    assert Tries(policy, most, 0).on_failure(LOST, 900 * MS) is not None
    assert Tries(policy, most, 0).on_failure(LOST, 901 * MS) is None
    now, retries, tries = 5 * MS, 0, Tries(policy, most, 5 * MS)
    while (wait := tries.on_failure(LOST, now)) is not None:
        now += wait
        retries += 1
    assert (retries, now // MS) == (10, 1004)


def test_busy_says_itself_when() -> None:
    tries = Tries(Backoff(base_ms=100), most, 0)
    wait = tries.on_failure(Busy("full", retry_after_ms=700), 0)
    assert wait is not None
    assert round(wait / MS) == 800
    assert tries.on_failure(Busy("full", retry_after_ms=30_000), 0) is None


def test_what_is_final_is_not_tried_again() -> None:
    tries = Tries(Backoff(), most, 0)
    assert tries.on_failure(Denied("no"), 0) is None
    assert tries.retries == 0


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (NodeUnreachable(), True),
        (Timeout(), True),
        (Busy(), True),
        (QueueFullError(), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (NetworkDisabled(), False),
        (CircuitOpen(), False),
        (Denied(), False),
        (UsageError(), False),
        (TaskTimedOut(), False),  # a TimeoutError, but the task's own end
        (GetTimeoutError(), False),
        (AbiError(), False),
        (ValueError(), False),
        (FileNotFoundError(), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_which_errors_may_pass(error: BaseException, retryable: bool) -> None:
    assert is_retryable(error) is retryable


@pytest.mark.parametrize("name", ["max_retries", "base_ms", "cap_ms", "budget_ms"])
def test_negative_numbers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Backoff(**{name: -1})
