"""The statistics of the bench, against numbers that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi_cli.bench import stats

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1)


def test_quantile_is_one_of_the_values_by_nearest_rank() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert stats.quantile(hundred, 0.99) == 99.0
    assert stats.quantile(hundred, 0.50) == 50.0
    assert stats.quantile(hundred, 1.0) == 100.0
    assert stats.quantile([7.0], 0.01) == 7.0


@given(NUMBERS, st.floats(0.001, 1.0))
def test_quantile_covers_its_share_and_no_smaller_value_does(values: list[float], share: float) -> None:
    found = stats.quantile(values, share)
    assert found in values
    covered = sum(value <= found for value in values)
    assert covered >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


def test_median_of_even_and_odd() -> None:
    assert stats.median([3.0, 1.0, 2.0]) == 2.0
    assert stats.median([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_p99_looks_at_the_bad_end() -> None:
    assert stats.p99([10.0, 30.0, 20.0], more_is_better=False) == 30.0
    assert stats.p99([10.0, 30.0, 20.0], more_is_better=True) == 10.0
    assert stats.p99([float(number) for number in range(1, 101)], more_is_better=True) == 2.0


def test_ratio_is_taken_round_by_round() -> None:
    # The machine was ten times slower in the last round, for both: the ratio does not notice.
    assert stats.median_ratio([100.0, 120.0, 11.0], [10.0, 10.0, 1.0]) == 11.0


def test_ratio_leaves_out_rounds_that_failed() -> None:
    assert stats.median_ratio([None, 6.0, 8.0], [1.0, 2.0, None]) == 3.0
    assert stats.median_ratio([None], [1.0]) is None
    assert stats.median_ratio([1.0], [0.0]) is None


@pytest.mark.parametrize("function", [stats.median, lambda values: stats.quantile(values, 0.5)])
def test_nothing_has_no_middle(function: object) -> None:
    with pytest.raises(ValueError, match="no values"):
        function([])  # type: ignore[operator]
