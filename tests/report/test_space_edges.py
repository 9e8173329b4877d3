"""Chosen settings on the edge of their space are found, whatever the space is made of."""

from __future__ import annotations

import pytest

from xbench.records.tuning import RangeRecord
from xbench.report.space_edges import find_edge

LINEAR = RangeRecord(low=1.0, high=2.0)
LOG = RangeRecord(low=1e-4, high=0.1, scale="log")


def end_of(value, space: RangeRecord, points=()) -> str | None:
    edge = find_edge("lr", value, space, points)
    return edge and edge.end


@pytest.mark.parametrize(
    ("value", "end"),
    [(1.0, "low"), (1.05, "low"), (1.051, None), (1.5, None), (1.949, None), (1.95, "high"), (2.0, "high")],
)
def test_the_outermost_twentieth_of_a_range(value, end):
    assert end_of(value, LINEAR) == end


@pytest.mark.parametrize(
    ("value", "end"),
    [
        (1e-4, "low"),
        (1.4e-4, "low"),
        (1.5e-4, None),
        (0.0049, None),
        (0.07, None),
        (0.072, "high"),
        (0.1, "high"),
    ],
)
def test_of_a_logarithmic_range_in_its_scale(value, end):
    """A twentieth of three powers of ten is a factor of 1.41."""
    assert end_of(value, LOG) == end


def test_the_end_of_a_wide_logarithmic_range_is_told_by_its_scale():
    assert end_of(1e18, RangeRecord(low=1e-20, high=1e20, scale="log")) == "high"


@pytest.mark.parametrize(("value", "end"), [(0.1, "low"), (0.2, None), (0.3, "high")])
def test_the_first_and_the_last_of_numbers_in_any_order(value, end):
    assert end_of(value, RangeRecord(choices=[0.2, 0.3, 0.1])) == end


def test_one_of_two_numbers_has_no_edge():
    assert end_of(0.9, RangeRecord(choices=[0.0, 0.9])) is None


def test_the_first_and_the_last_point_of_a_grid():
    points = [0.001, 0.01, 0.03]
    assert end_of(0.03, LOG, points) == "high"
    assert end_of(0.01, LOG, points) is None


def test_a_choice_is_compared_with_all_choices_not_with_those_tried():
    assert end_of(0.2, RangeRecord(choices=[0.1, 0.2, 0.3]), points=[0.1, 0.2]) is None


@pytest.mark.parametrize("space", [RangeRecord(low=0.0, high=1.0), RangeRecord(choices=[0, 0.5, 1])])
def test_nothing_lies_below_zero(space):
    assert end_of(0, space) is None
    assert end_of(1, space) == "high"


@pytest.mark.parametrize("value", ["plain", True, None, [0.9, 0.999], float("nan")])
def test_what_is_no_number_has_no_edge(value):
    assert end_of(value, RangeRecord(choices=[value, "other"])) is None
    assert end_of(value, LOG) is None


@pytest.mark.parametrize("space", [RangeRecord(), RangeRecord(choices=[0.1]), RangeRecord(low=0.1, high=0.1)])
def test_a_single_value_has_no_edge(space):
    assert end_of(0.1, space) is None


def test_the_sentence_names_the_space():
    edge = find_edge("lr", 0.1, LOG)
    assert edge is not None
    assert edge.text == "lr = 0.1 lies on the edge of its space [0.0001, 0.1]: widen it"
