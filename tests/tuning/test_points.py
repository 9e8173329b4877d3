"""Quasi-random points and grids."""

from __future__ import annotations

import itertools
import math

import pytest

from xbench.components.search_range import SearchRange
from xbench.tuning.points import find_middle, list_grid, pick_quasi_random, pick_value

RATE = SearchRange(low=1e-4, high=1.0, scale="log")
SHARE = SearchRange(low=0.0, high=0.8)
COUNT = SearchRange(low=2, high=5)
POWERS = SearchRange(low=1, high=100, scale="log")
KIND = SearchRange(choices=("a", "b", "c"))


def test_a_number_is_mapped_to_its_place_on_the_scale():
    assert pick_value(RATE, 0.5) == pytest.approx(1e-2)
    assert pick_value(SHARE, 0.25) == pytest.approx(0.2)
    assert pick_value(RATE, 0.0) == 1e-4


def test_integers_and_choices_get_equal_parts():
    units = [(place + 0.5) / 1200 for place in range(1200)]
    for values, expected in ((COUNT, {2, 3, 4, 5}), (KIND, {"a", "b", "c"})):
        found = [pick_value(values, unit) for unit in units]
        assert set(found) == expected
        assert {found.count(value) for value in expected} == {1200 // len(expected)}


def test_integers_on_a_log_scale_are_within_the_range():
    found = [pick_value(POWERS, place / 1000) for place in range(1000)]
    assert (min(found), max(found)) == (1, 100)
    assert found == sorted(found)
    assert all(isinstance(value, int) for value in found)
    assert sum(value <= 10 for value in found) == pytest.approx(1000 * math.log(21) / math.log(201), abs=2)


def test_values_have_few_digits_but_many_of_a_narrow_range():
    assert pick_value(RATE, 0.123) == 0.0003105
    assert pick_value(SHARE, 1 / 3) == 0.2667
    narrow = SearchRange(low=1.0, high=1.001, scale="log")
    assert [pick_value(narrow, unit) for unit in (0.0, 0.5, 0.999)] == [1.0, 1.0004999, 1.000999]
    assert pick_value(SearchRange(low=1e-9, high=3e-9), 0.5) == pytest.approx(2e-9)


def test_the_middle_stands_for_a_space():
    assert find_middle({"lr": RATE, "n": COUNT, "kind": KIND}) == {
        "lr": pytest.approx(0.01),
        "n": 4,
        "kind": "b",
    }


def points_of(space, count, seed=7):
    return [pick_quasi_random(space, number, seed) for number in range(1, count + 1)]


def test_optimizers_with_equally_many_settings_have_the_same_points():
    rates = [point["lr"] for point in points_of({"lr": RATE}, 8)]
    others = [point["rho"] for point in points_of({"rho": SearchRange(low=1e-2, high=1e2, scale="log")}, 8)]
    assert [rate * 100 for rate in rates] == pytest.approx(others, rel=2e-3)


def test_a_sequence_begins_alike_however_long_it_gets():
    assert points_of({"lr": RATE, "n": COUNT}, 13)[:5] == points_of({"lr": RATE, "n": COUNT}, 5)


def test_another_seed_has_other_points():
    assert points_of({"lr": RATE}, 4, seed=1) != points_of({"lr": RATE}, 4, seed=2)


def test_quasi_random_points_leave_no_large_gap():
    """Of 2^k points in one dimension, one is in each of 2^k equal parts, which random ones would not be."""
    units = sorted((math.log10(point["lr"]) + 4) / 4 for point in points_of({"lr": RATE}, 16))
    assert [int(16 * unit) for unit in units] == list(range(16))


def test_a_grid_has_both_ends_and_even_gaps():
    rates = [point["lr"] for point in list_grid({"lr": RATE}, 5)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert (rates[0], rates[-1]) == (1e-4, 1.0)


def test_a_grid_has_every_combination():
    found = list_grid({"lr": RATE, "share": SHARE, "kind": KIND}, 12)
    rates, shares = (1e-4, 1.0), (0.0, 0.8)
    expected = [
        {"lr": lr, "share": share, "kind": kind}
        for lr, share, kind in itertools.product(rates, shares, "abc")
    ]
    assert found == expected
    assert [point["n"] for point in list_grid({"n": COUNT}, 4)] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("space", "count", "told"),
    [
        ({"lr": RATE, "share": SHARE}, 8, "a grid over lr and share cannot have 8 points, but 4 or 9"),
        ({"kind": KIND}, 8, r"over kind \(3 choices\) cannot have 8 points, but 3"),
        ({"lr": RATE, "kind": KIND}, 8, "but 6 or 9"),
        ({"lr": RATE}, 1, "cannot have 1 points, but 2 or 3"),
        ({"n": COUNT}, 5, "n does not have 5 different integers"),
    ],
)
def test_a_grid_that_is_impossible_says_what_is_possible(space, count, told):
    with pytest.raises(ValueError, match=told):
        list_grid(space, count)
