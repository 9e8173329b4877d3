"""Tests of the history: the two-loop recursion, rounding, and the order of pairs."""

from __future__ import annotations

import pytest
import torch

from xbench_lbfgs_variants import pairs
from xbench_lbfgs_variants.pairs import PairHistory

pytestmark = pytest.mark.plugin


def make_pairs(count, length, dtype=torch.float64):
    """Make random pairs of positive curvature."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        step, noise = torch.randn(2, length, generator=generator, dtype=torch.float64)
        made.append((step.to(dtype), (2 * step + 0.3 * noise).to(dtype)))
    return made


def make_history(size, made, dtype=None):
    like = made[0][0]
    history = PairHistory(PairHistory.allocate(size, like, len(like), dtype or like.dtype, on_host=False))
    assert all(history.add(step, change) for step, change in made)
    return history


def update_densely(matrix, step, change, weight=1.0):
    """Apply the BFGS update of the inverse Hessian to a dense matrix."""
    r = 1 / step.dot(change)
    left = torch.eye(len(step), dtype=step.dtype) - r * torch.outer(step, change)
    return left @ matrix @ left.T + weight * r * torch.outer(step, step)


@pytest.mark.parametrize("weight", [1.0, 0.1])
@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("part", [3, 1 << 18])
def test_recursion_equals_the_dense_inverse(count, weight, part, monkeypatch):
    monkeypatch.setattr(pairs, "PART", part)
    made, size = make_pairs(count, 10), 4  # 7 pairs do not fit, so the oldest three are forgotten
    vector = torch.linspace(-1, 1, 10, dtype=torch.float64)
    dense = 0.7 * torch.eye(10, dtype=torch.float64)
    for step, change in made[-size:]:
        dense = update_densely(dense, step, change, weight)
    product = vector.clone()
    make_history(size, made).multiply(product, 0.7, weight)
    torch.testing.assert_close(product, dense @ vector)


def test_newest_pair_is_reproduced():
    made = make_pairs(3, 10)
    product = made[-1][1].clone()
    make_history(3, made).multiply(product, 0.5)
    torch.testing.assert_close(product, made[-1][0])


def test_empty_history_scales_only():
    state = PairHistory.allocate(3, torch.ones(4), 4, torch.float32, on_host=False)
    vector = torch.arange(4.0)
    PairHistory(state).multiply(vector, 0.5)
    assert vector.tolist() == [0, 0.5, 1, 1.5]


def test_scales_are_those_of_the_newest_pair_and_of_all():
    made = make_pairs(5, 10)
    ratios = [(step.dot(change) / change.dot(change)).item() for step, change in made]
    history = make_history(3, made)
    assert history.newest_scale().item() == pytest.approx(ratios[-1])
    assert history.mean_scale().item() == pytest.approx(sum(ratios[-3:]) / 3)


def test_pairs_without_curvature_are_left_out():
    history = make_history(3, make_pairs(1, 10))
    step = torch.ones(10, dtype=torch.float64)
    orthogonal = torch.tensor([1.0, -1.0] * 5, dtype=torch.float64)
    assert not history.add(step, -step)
    assert not history.add(step, orthogonal)
    assert not history.add(step, torch.full_like(step, torch.nan))
    assert not history.add(torch.zeros_like(step), step)
    assert len(history) == 1


def test_curvature_that_rounding_removes_is_left_out():
    # The curvature is 2**-10. In bfloat16, the last number is rounded to -1, and the curvature to 0.
    step, change = torch.ones(2), torch.tensor([1.0, -1 + 2.0**-10])
    added = {
        dtype: PairHistory(PairHistory.allocate(2, step, 2, dtype, on_host=False)).add(step, change)
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert added == {torch.float32: True, torch.bfloat16: False}


def test_products_with_narrow_pairs_are_accumulated_in_float32():
    # In bfloat16, a sum of ones does not grow beyond 256.
    length = 1 << 19
    step = torch.ones(length)
    history = PairHistory(PairHistory.allocate(1, step, length, torch.bfloat16, on_host=False))
    assert history.add(step, step)
    ((_, _, curvature),) = history.list_newest_first()
    assert curvature == length
    product = step.clone()
    history.multiply(product, 0.5)
    torch.testing.assert_close(product, step)


def test_narrow_pairs_are_rounded_and_no_more():
    made = make_pairs(4, 1000, torch.float32)
    rounded = [(step.bfloat16().float(), change.bfloat16().float()) for step, change in made]
    vector = torch.linspace(-1, 1, 1000)
    narrow, wide = vector.clone(), vector.clone()
    make_history(4, made, torch.bfloat16).multiply(narrow, 0.3)
    make_history(4, rounded).multiply(wide, 0.3)
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-6)


def test_largest_conversion_is_a_part_of_a_vector(monkeypatch):
    monkeypatch.setattr(pairs, "PART", 100)
    sizes = []
    convert = pairs._convert

    def watch(part, like):
        sizes.append(part.numel())
        return convert(part, like)

    monkeypatch.setattr(pairs, "_convert", watch)
    history = make_history(3, make_pairs(3, 1000, torch.float32), torch.bfloat16)
    history.multiply(torch.ones(1000), 1.0)
    assert max(sizes) == 100


def test_filled_history_gives_a_direction_of_descent():
    for dtype in (torch.float32, torch.bfloat16):
        history = PairHistory(PairHistory.allocate(5, torch.ones(1), 1000, dtype, on_host=False))
        history.fill(2.0**-10)
        assert len(history) == 5
        gradient = torch.linspace(-1, 2, 1000)
        product = gradient.clone()
        history.multiply(product, history.newest_scale())
        assert product.dot(gradient) > 0
