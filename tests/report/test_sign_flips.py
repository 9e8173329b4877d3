"""The exact test and interval of a mean difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xbench.report.sign_flips import _choose_subsets, compute_p, find_bounds

VALUES = [0.3, -0.1, 0.25, 0.4, 0.12, 0.05, 0.33]


def test_p_is_that_of_scipys_permutation_test():
    expected = stats.permutation_test(
        (VALUES,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert compute_p(VALUES) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("count", range(2, 10))
def test_equal_differences_have_the_smallest_p(count):
    assert compute_p([0.1] * count) == pytest.approx(2.0 ** (1 - count))


def test_ties_are_no_difference():
    assert compute_p([0.0] * 8) == 1


def test_six_values_are_within_the_smallest_and_the_largest():
    assert find_bounds(VALUES[:6]) == (-0.1, 0.4)


@pytest.mark.parametrize("count", [6, 7, 11])
def test_the_interval_holds_the_means_that_are_not_rejected(count):
    values = np.random.default_rng(count).exponential(size=count)
    low, high = find_bounds(values.tolist())
    for mean, is_rejected in ((low - 1e-6, 1), (low + 1e-6, 0), (high - 1e-6, 0), (high + 1e-6, 1)):
        assert (compute_p((values - mean).tolist()) <= 0.05) == is_rejected


def test_signs_of_many_values_are_drawn():
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    expected = stats.ttest_1samp(values, 0)
    assert compute_p(values.tolist()) == pytest.approx(expected.pvalue, abs=0.02)
    interval = expected.confidence_interval(0.95)
    assert find_bounds(values.tolist()) == pytest.approx((interval.low, interval.high), abs=0.08)


@pytest.mark.parametrize("count", range(6, 21))
def test_the_interval_excludes_zero_if_and_only_if_the_test_rejects_it(count):
    """Also where signs are drawn, and for differences whose sums are zero up to rounding."""
    random, rejected = np.random.default_rng(count), 0
    for place in range(200):
        values = random.normal(2.1 / np.sqrt(count), 1, count)
        if place % 4 == 0:
            values = np.round(values) * 0.1
        (low, high), p = find_bounds(values.tolist()), compute_p(values.tolist())
        assert (low > 0 or high < 0) == (p <= 0.05), (values, low, high, p)
        assert low <= high
        rejected += p <= 0.05
    assert 20 < rejected < 180


def test_drawn_signs_come_with_their_opposites_and_without_repetition():
    subsets = _choose_subsets(13)
    distinct = {tuple(row) for row in subsets.tolist()}
    assert len(distinct) == len(subsets) == 4096
    assert {tuple(1 - value for value in row) for row in distinct} == distinct
    assert not subsets[0].any()


def test_means_of_symmetric_values_are_covered():
    random = np.random.default_rng(0)
    held = [
        low <= 0 <= high for low, high in (find_bounds(v) for v in random.standard_t(2, (400, 7)).tolist())
    ]
    assert 0.92 < np.mean(held) < 0.98  # 122 of 128
