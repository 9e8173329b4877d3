"""Tests of the line search."""

from __future__ import annotations

import math

import pytest

from xbench_lbfgs_variants.line_search import CURVATURE, DECREASE, Point, search_line

pytestmark = pytest.mark.plugin

FUNCTIONS = {
    "quadratic": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "quartic": (lambda t: t**4 / 4 - 2 * t, lambda t: t**3 - 2),
    "wavy": (lambda t: math.cos(3 * t) - t / 2, lambda t: -3 * math.sin(3 * t) - 0.5),
    "steep": (lambda t: math.exp(t) - 20 * t, lambda t: math.exp(t) - 20),
    "barrier": (
        lambda t: -math.log(1 - t) - 5 * t if t < 1 else math.inf,
        lambda t: 1 / (1 - t + 1e-300) - 5,
    ),
}


def search(function, slope, first, max_evaluations=30):
    calls = []

    def evaluate(t):
        calls.append(t)
        return Point(t, function(t), slope(t))

    start = Point(0.0, function(0.0), slope(0.0))
    return search_line(evaluate, start, first, max_evaluations, 1e-12), start, calls


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("first", [1e-3, 0.5, 2.0, 50.0])
def test_point_meets_the_strong_wolfe_conditions(name, first):
    point, start, calls = search(*FUNCTIONS[name], first)
    assert point.t > 0 and calls[0] == first
    assert point.loss <= start.loss + DECREASE * point.t * start.slope
    assert abs(point.slope) <= CURVATURE * abs(start.slope)


def test_good_first_distance_takes_one_evaluation():
    _, _, calls = search(*FUNCTIONS["quadratic"], 3.0)
    assert calls == [3.0]


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_budget_is_kept_and_the_loss_never_rises(budget):
    point, start, calls = search(*FUNCTIONS["quadratic"], 1e6, budget)
    assert len(calls) == budget
    assert point.loss <= start.loss


def test_no_lower_point_returns_the_start():
    point, start, calls = search(lambda t: math.nan if t else 1.0, lambda t: -1.0, 1.0, 5)
    assert point == start and len(calls) == 5
