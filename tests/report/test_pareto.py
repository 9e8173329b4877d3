"""The Pareto front, where less of the cost is better."""

from __future__ import annotations

import pytest

from xbench.report.pareto import find_front

POINTS = [(1.0, 0.5), (2.0, 0.9), (3.0, 0.7), (4.0, 0.95), (4.0, 0.1)]


def test_more_is_better():
    assert find_front(POINTS, "max") == ((1.0, 0.5), (2.0, 0.9), (4.0, 0.95))


def test_less_is_better():
    assert find_front(POINTS, "min") == ((1.0, 0.5), (4.0, 0.1))


def test_order_does_not_matter():
    assert find_front(POINTS[::-1], "max") == find_front(POINTS, "max")


@pytest.mark.parametrize("better", ["max", "min"])
def test_equal_values_at_a_higher_cost_are_beaten(better):
    assert find_front([(1.0, 0.3), (2.0, 0.1 + 0.2), (1.0, 0.3)], better) == ((1.0, 0.3),)


def test_no_points_have_no_front():
    assert find_front([], "max") == ()
