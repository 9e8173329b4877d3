"""Intervals over seeds that share parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.run_samples import record
from xbench.records.aggregate import find_groupings, interval

CROSSED = tuple((weights, 0, order) for weights in range(2) for order in range(3))


def test_parts_that_vary_together_are_one_grouping():
    assert find_groupings([(3, 3, 3), (5, 5, 5), (3, 3, 3)]) == [(0, 1, 0)]
    assert find_groupings([(0, 1, 2)]) == []
    assert find_groupings(CROSSED) == [(0, 0, 0, 1, 1, 1), (0, 1, 2, 0, 1, 2)]


@pytest.mark.parametrize("parts", [[(0, 0, s) for s in range(5)], [(s, s, s) for s in range(5)]])
def test_seeds_that_share_none_have_the_usual_interval(parts):
    values = [0.3, 0.9, 0.5, 0.7, 0.55]
    assert interval(values, parts=tuple(parts)).half_width == interval(values).half_width


def test_seeds_that_share_parts_have_a_variance_for_each():
    values = np.array([[0.1, 0.2, 0.35], [0.6, 0.8, 0.7]])  # weights, order
    found = interval(values.ravel().tolist(), parts=CROSSED)
    of_weights, of_order = (values.mean(axis=axis) for axis in (1, 0))
    variances = [of_weights.var(ddof=1) / 2, of_order.var(ddof=1) / 3]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 1 + variances[1] ** 2 / 2)
    assert found.mean == pytest.approx(values.mean())
    assert found.freedom == pytest.approx(freedom)
    expected = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    assert found.half_width == pytest.approx(expected)
    assert found.half_width > interval(values.ravel().tolist()).half_width


def test_the_error_is_at_least_that_of_independent_seeds():
    parts = tuple((weights, 0, order) for weights in range(2) for order in range(2))
    found = interval([1.0, -1.0, -1.0, 1.0], parts=parts)  # the means of every part are equal
    assert found.error == interval([1.0, -1.0, -1.0, 1.0]).error
    assert found.freedom == 1


def test_older_records_have_equal_parts():
    assert record("a", seed=7).seed_parts.key == (7, 7, 7)
    assert record("a", seed=7, seed_parts={"weights": 1, "split": 0, "order": 2}).seed_parts.key == (1, 0, 2)
