"""Student's t distribution against scipy's."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from xbench.records.student import quantile, two_sided_p


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 3, 4.7, 9, 10, 29, 120.5, 5000])
@pytest.mark.parametrize("t", [0, 1e-9, 0.3, 1, 1.5, -2.2, 4, 13, 200, 1e6])
def test_p_values(t, freedom):
    assert two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-300)


def test_extremes():
    assert two_sided_p(math.inf, 3) == two_sided_p(1e200, 3) == 0


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 3.5, 9, 30, 1000])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_quantiles(freedom, level):
    assert quantile(freedom, level) == pytest.approx(stats.t.ppf(1 - level / 2, freedom), rel=1e-9)
