"""The table of addresses: back-off, ranks, bounds."""

from __future__ import annotations

import random

import pytest

from abid.core import dialling as rules
from abid.core.dialling import CANDIDATES_MAX, DIALS_PER_ORIGIN_MAX, Address, Dialling, Origin

SECOND = 1_000_000_000
OWN = b"\0\0\0\1"
START = 1000 * SECOND
NEVER = 1 - 2**-53
"""The largest lot there is."""


def address(n: int) -> Address:
    return Address(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 8081)


def table(*proposals: tuple[int, Origin]) -> Dialling:
    dialling = Dialling(OWN)
    for n, origin in proposals:
        assert dialling.propose(address(n), origin, START, START)
    return dialling


def started(dialling: Dialling, now: int) -> list[Address]:
    return [one.address for one in dialling.start(now, set(), is_enough=False)]


def rests(lot: float, failures: int) -> list[float]:
    """Seconds from each failure to the next dial."""
    dialling, now, found = table((1, Origin.CONFIGURED)), START, []
    for _ in range(failures):
        assert started(dialling, now) == [address(1)]
        dialling.on_dialled(address(1), None, now, lot)
        ready = dialling.next_at(set(), is_enough=False)
        assert ready is not None
        assert started(dialling, ready - 1) == []
        found.append((ready - now) / SECOND)
        now = ready
    return found


def test_back_off_doubles_to_a_minute() -> None:
    assert rests(NEVER, 9) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], abs=1e-6)


def test_jitter_is_full_and_the_spacing_holds() -> None:
    assert rests(0.0, 9) == [1] * 9
    assert rests(0.5, 9) == pytest.approx([1, 1, 2, 4, 8, 16, 30, 30, 30])


def test_success_ends_a_back_off() -> None:
    dialling, now = table((1, Origin.CONFIGURED)), START
    for _ in range(5):
        now = dialling.next_at(set(), is_enough=False) or 0
        started(dialling, now)
        dialling.on_dialled(address(1), None, now, NEVER)
    now = dialling.next_at(set(), is_enough=False) or 0
    started(dialling, now)
    dialling.on_dialled(address(1), b"\0\0\0\2", now, NEVER)
    dialling.on_closed(b"\0\0\0\2", now, NEVER)
    assert dialling.next_at(set(), is_enough=False) == pytest.approx(now + SECOND, abs=10)


def test_those_further_up_are_dialled_first() -> None:
    origins = list(Origin)
    random.Random(3).shuffle(origins)
    dialling = table(*enumerate(origins))
    assert [origins.index(origin) for origin in Origin] == [int(one.host[-1]) for one in started(dialling, START)]


def test_a_thousand_dead_hosts_do_not_keep_a_living_one_waiting() -> None:
    dialling = table(*((n, Origin.REMEMBERED) for n in range(1000)))
    assert len(started(dialling, START)) == DIALS_PER_ORIGIN_MAX  # and none of these ever ends
    dialling.propose(address(5000), Origin.HEARD, START, START)
    assert started(dialling, START) == [address(5000)]
    assert dialling.next_at(set(), is_enough=False) is None


def test_within_an_origin_all_have_their_turn() -> None:
    dialling, seen, now = table(*((n, Origin.REMEMBERED) for n in range(100))), set(), START
    for _ in range(100 // DIALS_PER_ORIGIN_MAX):
        for one in started(dialling, now):
            seen.add(one)
            dialling.on_dialled(one, None, now, 0.0)
        now += 10 * SECOND
    assert len(seen) == 100


def test_a_dial_counts_for_the_origin_that_began_it() -> None:
    dialling = table((1, Origin.HEARD))
    started(dialling, START)
    dialling.propose(address(1), Origin.REGISTERED, START, START)
    dialling.on_dialled(address(1), None, START, 0.0)
    for origin in (Origin.HEARD, Origin.REGISTERED):
        for n in range(10):
            dialling.propose(address(100 * origin + n), origin, START, START)
    chosen = [one.origin for one in dialling.start(START, set(), is_enough=False)]
    assert [chosen.count(origin) for origin in (Origin.HEARD, Origin.REGISTERED)] == [DIALS_PER_ORIGIN_MAX] * 2


def test_the_table_is_bounded_and_better_ones_find_room() -> None:
    dialling = table(*((n, Origin.HEARD) for n in range(CANDIDATES_MAX)))
    assert dialling.propose(address(5000), Origin.LISTED, START, START) is False
    assert dialling.propose(address(5001), Origin.REGISTERED, START, START)
    assert len(dialling.candidates) == CANDIDATES_MAX
    assert address(5001) in dialling.candidates


def test_making_room_forgets_no_dial_of_this_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever fills the table could have one address dialled as often as it likes."""
    monkeypatch.setattr(rules, "CANDIDATES_MAX", 200)
    dialling = table(*((n, Origin.HEARD) for n in range(200)))
    just_dialled = started(dialling, START)
    for one in just_dialled:
        dialling.on_dialled(one, None, START, NEVER)
    for n in range(5000, 5400):
        dialling.propose(address(n), Origin.CONFIGURED, START, START)
    assert len(dialling.candidates) == 200
    assert set(just_dialled) <= set(dialling.candidates)


def test_a_dial_that_nobody_made_changes_nothing() -> None:
    dialling = table((1, Origin.HEARD))
    dialling.on_dialled(address(1), None, START, NEVER)
    dialling.on_dialled(address(2), b"\0\0\0\2", START, NEVER)
    assert started(dialling, START) == [address(1)]
    assert list(dialling.candidates) == [address(1)]


def test_what_is_dropped_comes_back_no_sooner() -> None:
    dialling = table((1, Origin.HEARD))
    started(dialling, START)
    dialling.on_dialled(address(1), None, START, 0.0)
    dialling.drop(address(1))
    assert started(dialling, START + SECOND - 1) == []
    dialling.propose(address(1), Origin.HEARD, START, START)
    assert started(dialling, START + SECOND - 1) == []
    assert started(dialling, START + SECOND) == [address(1)]
    dialling.on_dialled(address(1), None, START + SECOND, 0.0)
    dialling.drop(address(1))
    assert started(dialling, START + 2 * SECOND) == []
    assert dialling.candidates == {}


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_no_address_is_dialled_twice_in_a_second(seed: int) -> None:
    lots = random.Random(seed)
    dialling, now, last = Dialling(OWN), START, dict[Address, int]()
    under_way: set[Address] = set()
    for _ in range(2000):
        now += lots.choice((0, SECOND // 100, SECOND // 3))
        one = address(lots.randrange(6))
        match lots.randrange(6):
            case 0:
                dialling.propose(one, lots.choice(list(Origin)), now, now, lots.choice((b"", b"\0\0\0\2", OWN)))
            case 1 if one in dialling.candidates:
                dialling.hasten(one, now)
            case 2:
                dialling.drop(one)
            case 3 if under_way:
                done = lots.choice(sorted(under_way))
                under_way.discard(done)
                dialling.on_dialled(done, lots.choice((None, b"\0\0\0\2", OWN)), now, lots.random())
            case 4:
                lots.choice((dialling.hasten_all, lambda at: dialling.on_closed(b"\0\0\0\2", at, 0.0)))(now)
            case _:
                for dialled in started(dialling, now):
                    assert dialled not in under_way, f"seed {seed}"
                    assert now - last.get(dialled, 0) >= SECOND, f"seed {seed}"
                    last[dialled] = now
                    under_way.add(dialled)
    assert len(last) == 6
