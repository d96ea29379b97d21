"""The numbers of a cluster's incarnations."""

from __future__ import annotations

from abi.wire import incarnations
from abi.wire.incarnations import FIRST, LOT_BITS, following


def test_each_is_above_all_of_earlier_generations_whatever_they_drew() -> None:
    lowest, highest = 0, (1 << LOT_BITS) - 1
    assert FIRST < following(FIRST, lowest) < following(FIRST, highest) < following(following(FIRST, highest), lowest)


def test_two_that_follow_the_same_one_are_of_one_generation_and_differ() -> None:
    one, other = following(FIRST, 0x5F3A9C01), following(FIRST, 7)
    assert one != other
    assert incarnations.generation(one) == incarnations.generation(other) == 2
    assert [incarnations.name(each) for each in (FIRST, one, other)] == ["1", "2-5f3a9c01", "2-00000007"]


def test_those_that_were_counted_before_there_were_lots_go_on() -> None:
    assert [incarnations.generation(counted) for counted in (1, 2, 3)] == [1, 2, 3]
    assert incarnations.name(3) == "3"
    assert following(3, 0) > 3
    assert incarnations.generation(following(3, 0)) == 4


def test_readers_of_json_read_the_thousandth() -> None:
    incarnation = FIRST
    for _ in range(1000):
        incarnation = following(incarnation, (1 << LOT_BITS) - 1)
    assert incarnation < 1 << 53
