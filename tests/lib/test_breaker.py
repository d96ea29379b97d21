"""The breaker's rule, on a clock of its own."""

from __future__ import annotations

import random

import pytest

from abi.breaker import Breaker, Closed, HalfOpen, Open, Permit, Refusal

SECOND = 1_000_000_000
RESET = 30 * SECOND


def admitted(breaker: Breaker, now: int = 0) -> Permit:
    answer = breaker.admit(now)
    assert isinstance(answer, Permit)
    return answer


def opened(now: int = 0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(admitted(breaker, now), now)
    assert breaker.state == Open(now + RESET)
    return breaker


def test_five_failures_in_a_row_open_it_and_four_do_not() -> None:
    breaker = Breaker()
    for failures in range(1, 5):
        breaker.failed(admitted(breaker), 0)
        assert breaker.state == Closed(failures)
    breaker.failed(admitted(breaker), 7)
    assert breaker.state == Open(7 + RESET)


def test_open_refuses_to_the_last_nanosecond_and_says_when() -> None:
    breaker = opened()
    assert breaker.admit(10 * SECOND) == Refusal(20 * SECOND)
    assert breaker.admit(RESET - 1) == Refusal(1)
    admitted(breaker, RESET)


def test_half_open_lets_three_probes_through_and_no_fourth() -> None:
    breaker = opened()
    for _ in range(3):
        admitted(breaker, RESET)
    assert breaker.admit(RESET + SECOND) == Refusal(29 * SECOND)


def test_all_probes_succeed_and_it_closes() -> None:
    breaker = opened()
    probes = [admitted(breaker, RESET) for _ in range(3)]
    for probe in probes:
        assert isinstance(breaker.state, HalfOpen)
        breaker.succeeded(probe)
    assert breaker.state == Closed()


def test_probes_one_after_the_other_close_it_as_well() -> None:
    breaker = opened()
    for _ in range(3):
        breaker.succeeded(admitted(breaker, RESET))
    assert breaker.state == Closed()


def test_one_failed_probe_opens_it_for_the_whole_time_again() -> None:
    breaker = opened()
    first, second = admitted(breaker, RESET), admitted(breaker, RESET)
    breaker.succeeded(first)
    breaker.failed(second, RESET + SECOND)
    assert breaker.state == Open(2 * RESET + SECOND)


# What earlier code on this specification did wrong.


def test_past_fault_success_count_carried_over_from_the_closed_state() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.succeeded(admitted(breaker))
    for _ in range(5):
        breaker.failed(admitted(breaker), 0)
    breaker.succeeded(admitted(breaker, RESET))
    assert breaker.name(RESET) == "half-open"


def test_past_fault_successes_of_one_half_opening_carried_over_to_the_next() -> None:
    breaker = opened()
    breaker.succeeded(admitted(breaker, RESET))
    breaker.succeeded(admitted(breaker, RESET))
    breaker.failed(admitted(breaker, RESET), RESET)
    breaker.succeeded(admitted(breaker, 2 * RESET))
    assert breaker.name(2 * RESET) == "half-open"


def test_past_fault_failures_never_cleared_by_success() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(4):
            breaker.failed(admitted(breaker), 0)
        breaker.succeeded(admitted(breaker))
        assert breaker.state == Closed()


def test_past_fault_half_open_calls_counted_twice() -> None:
    breaker = opened()
    probe = admitted(breaker, RESET)
    for _ in range(3):
        breaker.succeeded(probe)
    assert isinstance(breaker.state, HalfOpen)
    assert breaker.state.succeeded == 1
    # Neither is a place counted twice, at admission and at the end: two more are there, and no third.
    admitted(breaker, RESET)
    admitted(breaker, RESET)
    assert isinstance(breaker.admit(RESET), Refusal)


def test_past_fault_stuck_half_open_when_a_probes_caller_died() -> None:
    breaker = opened()
    for _ in range(3):
        admitted(breaker, RESET)  # and nothing is ever heard of it
    assert isinstance(breaker.admit(2 * RESET - 1), Refusal)
    for _ in range(3):
        breaker.succeeded(admitted(breaker, 2 * RESET))
    assert breaker.state == Closed()


def test_a_probe_whose_caller_gave_up_gives_its_place_back_at_once() -> None:
    breaker = opened()
    probes = [admitted(breaker, RESET) for _ in range(3)]
    breaker.abandoned(probes[0])
    admitted(breaker, RESET)
    assert isinstance(breaker.admit(RESET), Refusal)


# Words that come late.


def test_a_slow_probe_still_counts_when_its_place_is_gone() -> None:
    breaker = opened()
    slow = [admitted(breaker, RESET) for _ in range(3)]
    admitted(breaker, 2 * RESET)
    for probe in slow:
        breaker.succeeded(probe)
    assert breaker.state == Closed()


def test_a_call_of_the_closed_breaker_says_nothing_of_the_half_open_one() -> None:
    breaker = Breaker()
    old = [admitted(breaker) for _ in range(5)]
    for _ in range(5):
        breaker.failed(admitted(breaker), 0)
    breaker.failed(old[0], RESET - 1)
    assert breaker.admit(RESET - 1) == Refusal(1)  # not put off
    probe = admitted(breaker, RESET)
    breaker.succeeded(old[1])
    breaker.failed(old[2], RESET)
    assert isinstance(breaker.state, HalfOpen)
    assert (breaker.state.probes, breaker.state.succeeded) == ([probe], 0)


def test_a_probe_of_before_says_nothing_of_the_closed_breaker() -> None:
    breaker = opened()
    forgotten = [admitted(breaker, RESET) for _ in range(3)]
    for _ in range(3):
        breaker.succeeded(admitted(breaker, 2 * RESET))
    for probe in forgotten:
        breaker.failed(probe, 2 * RESET)
    assert breaker.state == Closed()


def test_what_it_says_of_itself() -> None:
    breaker = Breaker()
    breaker.failed(admitted(breaker), 0)
    assert breaker.described(0) == {"state": "closed", "failures": 1, "retry_after_ms": 0}
    breaker = opened()
    assert breaker.described(RESET - 1) == {"state": "open", "failures": 5, "retry_after_ms": 1}
    assert breaker.described(RESET) == {"state": "half-open", "failures": 5, "retry_after_ms": 0}
    admitted(breaker, RESET)
    assert breaker.described(RESET) == {"state": "half-open", "failures": 5, "retry_after_ms": 0}


@pytest.mark.parametrize("limits", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_limits_below_one_are_refused(limits: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Breaker(*limits)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_it_holds_its_promises_and_recovers(seed: int) -> None:
    """Random calls, ends, losses and pauses. At no time are more than three live probes out; it opens only after as
    many failures as it must; and once the callee is well it closes within two openings."""
    lots = random.Random(seed)
    breaker, now = Breaker(), 0
    out: list[Permit] = []
    for _ in range(400):
        now += lots.choice([0, 1, SECOND, RESET // 2, RESET])
        was = breaker.state
        match lots.randrange(5):
            case 0 | 1:
                answer = breaker.admit(now)
                if isinstance(answer, Permit):
                    out.append(answer)
                else:
                    assert 0 < answer.retry_after_ns <= RESET
            case 2 if out:
                breaker.failed(out.pop(lots.randrange(len(out))), now)
            case 3 if out:
                breaker.succeeded(out.pop(lots.randrange(len(out))))
            case 4 if out:
                out.pop(lots.randrange(len(out)))  # its caller died
        if isinstance(was, Closed) and isinstance(breaker.state, Open):
            assert was.failures == 4
        if isinstance(breaker.state, HalfOpen):
            assert sum(probe.until_ns > now for probe in breaker.state.probes) <= 3
    now += 2 * RESET
    for _ in range(3):
        breaker.succeeded(admitted(breaker, now))
    assert breaker.state == Closed()
