"""Intervals over seeds, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xbench.records.aggregate import CONFIDENCE, interval


@pytest.mark.parametrize("values", [[0.9, 0.8], [1.0, 2.0, 4.0], [-3.5, 1e6, 12.0, 0.25, 7.0], range(100)])
def test_against_scipy(values):
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    found = interval(values)
    assert found.mean == pytest.approx((low + high) / 2, rel=1e-12)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-9)
    assert found.values == tuple(values)


@pytest.mark.parametrize("seeds", range(2, 13))
def test_every_number_of_seeds_against_scipy(seeds):
    values = [0.5, 1.5] + [1.0] * (seeds - 2)
    low, high = stats.t.interval(CONFIDENCE, seeds - 1, loc=1.0, scale=stats.sem(values))
    assert interval(values).half_width == pytest.approx((high - low) / 2, rel=1e-9)


def test_confidence_is_the_usual_one():
    assert CONFIDENCE == 0.95


def test_equal_values():
    assert interval([0.5, 0.5, 0.5]).half_width == 0


def test_a_single_value_has_no_spread():
    found = interval([0.7])
    assert (found.mean, found.half_width, found.values) == (0.7, None, (0.7,))


def test_it_knows_the_seeds_of_its_values():
    found = interval([0.5, 0.7], (3, 8))
    assert (found.n, found.seeds) == (2, (3, 8))
