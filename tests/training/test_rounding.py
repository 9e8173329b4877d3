"""Outputs that differ by rounding alone."""

from __future__ import annotations

import math

import pytest
import torch

from xbench.training.rounding import equal_up_to_rounding

ONE = torch.tensor([100.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("dtype", "within", "beyond"),
    [(torch.float64, 5e-7, 2e-6), (torch.float32, 5e-5, 2e-4), (torch.bfloat16, 1e-2, 4e-2)],
)
def test_is_a_share_of_the_largest_value(dtype, within, beyond):
    one = ONE.to(dtype)
    change = torch.tensor([0.0, 0.0, 100.0], dtype=dtype)
    assert equal_up_to_rounding(one, one + within * change)
    assert not equal_up_to_rounding(one, one + beyond * change)


def test_the_share_may_be_given():
    assert not equal_up_to_rounding(ONE, ONE + 0.5)
    assert equal_up_to_rounding(ONE, ONE + 0.5, 1e-2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_equal_themselves_alone(value):
    one = torch.tensor([value, 1.0])
    assert equal_up_to_rounding(one, one.clone())
    assert not equal_up_to_rounding(one, torch.tensor([2.0, 1.0]))
    assert not equal_up_to_rounding(one, torch.tensor([value, 2.0]))


def test_another_shape_is_another_output():
    assert not equal_up_to_rounding(ONE, ONE[:1])


def test_zeros():
    assert equal_up_to_rounding(torch.zeros(3), torch.zeros(3))
    assert not equal_up_to_rounding(torch.zeros(3), torch.full((3,), 1e-30))
