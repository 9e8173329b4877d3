"""Intervals over random seeds' values against scipy's, and where floats would cancel against fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xbench.records.aggregate import CONFIDENCE, interval

often = settings(derandomize=True, max_examples=200, deadline=None)
THOUSANDTHS = st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=30)


@often
@given(THOUSANDTHS)
def test_interval_is_scipys(thousandths):
    values = [number / 1000 for number in thousandths]
    found = interval(values)
    assert found.mean == pytest.approx(stats.tmean(values), rel=1e-12, abs=1e-12)
    if len(set(values)) == 1:
        assert found.half_width == 0
        return
    low, high = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    assert found.mean - found.half_width == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert found.mean + found.half_width == pytest.approx(high, rel=1e-9, abs=1e-9)


@often
@given(st.lists(st.integers(0, 50), min_size=2, max_size=10), st.sampled_from([0, 10**9, 2**52]))
def test_a_small_spread_of_large_values_is_not_lost(numbers, offset):
    values = [float(offset + number) for number in numbers]
    exact = [Fraction(value) for value in values]
    count, mean = len(exact), sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / (count - 1)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    found = interval(values)
    assert found.mean == float(mean)
    assert found.half_width == pytest.approx(quantile * float(variance / count) ** 0.5, rel=1e-9)


@often
@given(THOUSANDTHS, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(thousandths, random):
    shuffled = random.sample(thousandths, len(thousandths))
    one, other = interval(thousandths), interval(shuffled)
    assert (one.mean, one.half_width) == (other.mean, other.half_width)
