"""P values that are corrected for the number of comparisons."""

from __future__ import annotations

import pytest

from xbench.report.holm import correct


def test_the_smallest_counts_for_all_and_the_next_for_the_rest():
    # The example of Holm (1979) in other words: 0.01 * 4, 0.02 * 3, 0.02 * 3 again, 0.2 * 1.
    assert correct([0.02, 0.2, 0.01, 0.025]) == pytest.approx([0.06, 0.2, 0.04, 0.06])


def test_no_value_is_above_one_and_order_is_kept():
    assert correct([0.9, 0.6]) == [1.0, 1.0]


def test_comparisons_that_are_not_given_count_as_well():
    assert correct([0.01, 0.02], 10) == pytest.approx([0.1, 0.18])


def test_without_comparisons_nothing_is_corrected():
    assert correct([]) == []
    assert correct([0.03]) == [0.03]
