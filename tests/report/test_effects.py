"""Paired differences and ratios."""

from __future__ import annotations

import math

import pytest

from xbench.records.aggregate import interval
from xbench.report.effects import paired_effect


def figure(**values: float):
    """An interval of values by seed: `figure(s0=0.5, s1=0.6)`."""
    return interval(list(values.values()), tuple(int(name[1:]) for name in values))


def test_a_difference_has_the_interval_of_a_paired_t_test():
    scipy_stats = pytest.importorskip("scipy.stats")
    ours, theirs = [0.81, 0.84, 0.86, 0.90], [0.80, 0.80, 0.85, 0.86]
    effect = paired_effect("difference", interval(ours, (0, 1, 2, 3)), interval(theirs, (0, 1, 2, 3)))
    expected = scipy_stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))
    assert effect.estimate == pytest.approx(0.025)
    assert effect.n == 4


def test_only_seeds_that_both_have_are_paired():
    effect = paired_effect("difference", figure(s0=1.0, s1=2.0, s5=9.0), figure(s1=1.5, s0=0.5, s2=7.0))
    assert (effect.estimate, effect.seeds) == (0.5, (0, 1))


def test_a_ratio_is_the_geometric_mean_of_the_pairs():
    effect = paired_effect("ratio", figure(s0=2.0, s1=8.0), figure(s0=1.0, s1=1.0))
    assert effect.estimate == pytest.approx(4.0)
    assert effect.low * effect.high == pytest.approx(16.0)  # symmetric on a logarithmic scale


@pytest.mark.parametrize(("kind", "equal"), [("difference", 0.0), ("ratio", 1.0)])
def test_equal_values_are_no_effect(kind, equal):
    effect = paired_effect(kind, figure(s0=2.0, s1=3.0), figure(s0=2.0, s1=3.0))
    assert (effect.estimate, effect.low, effect.high) == (equal, equal, equal)
    assert effect.is_significant is False


@pytest.mark.parametrize(
    ("parts", "p"),
    [
        ([(seed, seed, seed) for seed in range(6)], 2 / 2**6),
        ([(0, 0, order) for order in range(6)], 2 / 2**6),
        ([(weights, 0, order) for weights in range(2) for order in range(3)], 2 / 2**2),
        ([(weights, 0, order) for weights in range(3) for order in range(4)], 2 / 2**3),
    ],
)
def test_equal_differences_count_only_the_seeds_that_share_no_part(parts, p):
    seeds = tuple(range(len(parts)))
    figures = [interval([value] * len(parts), seeds, tuple(parts)) for value in (0.9, 0.9 - 1 / 36)]
    effect = paired_effect("difference", *figures)
    assert (effect.method, effect.p) == ("constant", p)


def test_one_seed_says_nothing_about_significance():
    effect = paired_effect("difference", figure(s0=0.9), figure(s0=0.8))
    assert (effect.low, effect.high, effect.is_significant) == (None, None, None)


@pytest.mark.parametrize(
    ("ours", "is_significant"),
    [({"s0": 0.91, "s1": 0.92, "s2": 0.90}, True), ({"s0": 0.7, "s1": 0.9}, False)],
)
def test_an_effect_is_significant_if_its_interval_excludes_no_change(ours, is_significant):
    assert paired_effect("difference", figure(**ours), figure(s0=0.8, s1=0.81, s2=0.8)).is_significant is (
        is_significant
    )


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("difference", {"s0": 1.0}, {"s1": 1.0}),
        ("ratio", {"s0": 0.0}, {"s0": 1.0}),
        ("ratio", {"s0": 1.0}, {"s0": -1.0}),
    ],
)
def test_what_cannot_be_paired_is_none(kind, ours, theirs):
    assert paired_effect(kind, figure(**ours), figure(**theirs)) is None


def test_a_value_that_is_not_finite_leaves_no_interval():
    effect = paired_effect("difference", figure(s0=math.inf, s1=1.0), figure(s0=1.0, s1=1.0))
    assert not math.isfinite(effect.estimate)
    assert effect.is_significant is None


def test_huge_ratios_do_not_overflow():
    effect = paired_effect("ratio", figure(s0=1e300, s1=1.0), figure(s0=1e-300, s1=1.0))
    assert effect.high == math.inf
