"""Poisson's equation: its exact solution satisfies it, and a network that satisfies it is that solution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.components.row_samples import build, loss_of, metrics_of, minimise
from xbench.components.poisson import (
    build_poisson_1d,
    build_poisson_2d,
    differentiate_twice,
    relative_l2_error,
)
from xbench.components.row_models import build_mlp
from xbench.errors import XbenchError

BUILDERS = [build_poisson_1d, build_poisson_2d]


class Exact(nn.Module):
    """The solution, in torch."""

    def __init__(self, frequencies, factor=1.0):
        super().__init__()
        self.frequencies = frequencies
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x):
        waves = [(k * math.pi * x).sin().prod(1, keepdim=True) / k for k in self.frequencies]
        return self.factor * sum(waves)


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_exact_solution_satisfies_the_equation_and_the_boundary(builder):
    dataset = builder(frequencies=(1, 3))
    for rows in (dataset.train, dataset.test):
        assert loss_of(dataset.task, Exact((1, 3)), rows).item() < 1e-20
    assert metrics_of(dataset.task, Exact((1, 3)), list(dataset.test.values()))["relative_l2_error"] < 1e-14


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_model_that_is_zero_has_a_loss_and_an_error_of_1(builder):
    dataset = builder()
    model = Exact((1,), factor=0.0)
    assert loss_of(dataset.task, model, dataset.train).item() == pytest.approx(1, rel=1e-3)
    found = metrics_of(dataset.task, model, list(dataset.test.values()))
    assert found["relative_l2_error"] == pytest.approx(1)


def test_the_loss_can_be_differentiated_by_the_model():
    dataset = build_poisson_1d(frequencies=(2,))
    model = Exact((2,), factor=0.5)
    loss_of(dataset.task, model, dataset.train).backward()
    # The loss is (factor - 1)^2, as f^2 has its mean.
    assert model.factor.grad.item() == pytest.approx(-1, rel=1e-6)


def test_boundaries_count_by_their_weight():
    dataset = build_poisson_2d(boundary_weight=5.0)
    boundary = dataset.task.terms["boundary"]
    assert boundary.scale == 5
    ones = boundary.loss(lambda x: torch.ones_like(x[:, :1]), dataset.train["boundary"])
    torch.testing.assert_close(ones, torch.ones_like(ones))


def test_second_derivatives_are_those_of_the_closed_form():
    x = torch.tensor([[0.5, 2.0], [-1.0, 0.3]], dtype=torch.float64)
    found = differentiate_twice(lambda x: (x[:, :1] ** 3) * x[:, 1:] + x[:, 1:] ** 2, x)
    torch.testing.assert_close(found, 6 * x[:, :1] * x[:, 1:] + 2)
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("builder", "inside", "on_boundary"), [(BUILDERS[0], 128, 2), (BUILDERS[1], 576, 100)]
)
def test_points_are_inside_or_on_the_boundary(builder, inside, on_boundary):
    dataset = builder()
    for split in (dataset.train, dataset.test):
        x = split["interior"][0]
        assert ((x > 0) & (x < 1)).all()
        x = split["boundary"][0]
        assert ((x == 0) | (x == 1)).any(1).all()
    assert [len(rows[0]) for rows in dataset.train.values()] == [inside, on_boundary]


def test_lbfgs_solves_the_equation():
    dataset = build_poisson_1d(points=32, frequencies=(1, 2))
    model = build(dataset, build_mlp, hidden=(16,), activation="tanh")
    minimise(dataset, model, 6, history_size=50, max_iter=20)
    found = metrics_of(dataset.task, model, list(dataset.test.values()))
    assert found["relative_l2_error"] < 0.1


def test_the_error_is_relative_to_the_solution():
    exact = np.array([[3.0], [4.0]])
    assert relative_l2_error((exact + np.array([[1.0], [0.0]]), exact)) == pytest.approx(0.2)


@pytest.mark.parametrize(("builder", "name"), [(build_poisson_1d, "points"), (build_poisson_2d, "side")])
@pytest.mark.parametrize("value", [0, 2.5, 10**9])
def test_numbers_of_points_out_of_range_are_refused(builder, name, value):
    with pytest.raises(XbenchError, match=rf"{name} = .* is not valid"):
        builder(**{name: value})


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"frequencies": ()},
        {"frequencies": (1, 1)},
        {"frequencies": (0,)},
        {"frequencies": (1.5,)},
        {"boundary_weight": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(builder, settings):
    (name,) = settings
    with pytest.raises(XbenchError, match=rf"{name} = .* is not valid"):
        builder(**settings)


@pytest.mark.parametrize("builder", BUILDERS)
def test_content_is_told_apart_by_frequencies(builder):
    assert builder(frequencies=(1,)).fingerprint != builder(frequencies=(2,)).fingerprint
