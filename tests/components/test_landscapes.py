"""Test functions: values and gradients in closed form, their minima, and the points they start from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import rosen, rosen_der

from tests.components.row_samples import build, loss_of, metrics_of, minimise
from xbench.components.landscapes import (
    build_beale,
    build_quadratic,
    build_rastrigin,
    build_rosenbrock,
)
from xbench.components.row_models import build_point
from xbench.errors import XbenchError

BUILDERS = [build_rosenbrock, build_beale, build_rastrigin, build_quadratic]


def value_and_gradient(dataset):
    model = build(dataset, build_point)
    loss = loss_of(dataset.task, model, dataset.train)
    loss.backward()
    return loss.item(), model.displacement.grad.numpy()


def test_rosenbrock_is_that_of_scipy():
    start = [0.3, -0.7, 1.1, 2.0]
    value, gradient = value_and_gradient(build_rosenbrock(dimension=4, start=start))
    assert value == pytest.approx(rosen(start))
    np.testing.assert_allclose(gradient, rosen_der(np.array(start)), rtol=1e-12)


def test_rosenbrock_starts_where_it_classically_does():
    value, gradient = value_and_gradient(build_rosenbrock())
    assert value == pytest.approx(24.2)
    np.testing.assert_allclose(gradient, [-215.6, -88.0], rtol=1e-12)


def test_beale_starts_where_it_classically_does():
    value, gradient = value_and_gradient(build_beale())
    assert value == pytest.approx(1.5**2 + 2.25**2 + 2.625**2)
    np.testing.assert_allclose(gradient, [0.0, 2 * (1.5 + 2 * 2.25 + 3 * 2.625)], atol=1e-12)


def test_rastrigin_is_its_textbook_formula():
    x = [0.3, -1.2, 2.0]
    value, gradient = value_and_gradient(build_rastrigin(dimension=3, start=x))
    assert value == pytest.approx(30 + sum(c * c - 10 * math.cos(2 * math.pi * c) for c in x))
    expected = [2 * c + 20 * math.pi * math.sin(2 * math.pi * c) for c in x]
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_an_unrotated_quadratic_is_a_weighted_sum_of_squares():
    dataset = build_quadratic(dimension=3, condition=100.0, rotated=False, start=[1.0, 2.0, 3.0])
    value, gradient = value_and_gradient(dataset)
    assert value == pytest.approx((1 + 0.1 * 4 + 0.01 * 9) / 2)
    np.testing.assert_allclose(gradient, [1.0, 0.2, 0.03], rtol=1e-12)


def test_a_rotated_quadratic_has_the_condition_number_that_was_asked_for():
    dataset = build_quadratic(dimension=4, condition=1e4)
    hessian = torch.autograd.functional.hessian(
        lambda x: dataset.task.loss_of(x[None], dataset.train)[0], torch.zeros(4, dtype=torch.float64)
    ).numpy()
    curvatures = np.linalg.eigvalsh(hessian)
    assert curvatures[-1] / curvatures[0] == pytest.approx(1e4, rel=1e-6)
    assert np.abs(hessian - np.diag(np.diag(hessian))).max() > 0.01


@pytest.mark.parametrize(
    ("builder", "minimiser"),
    [
        (build_rosenbrock, [1.0, 1.0]),
        (build_beale, [3.0, 0.5]),
        (build_rastrigin, [0.0, 0.0]),
        (build_quadratic, [0.0] * 50),
    ],
)
def test_the_minimum_is_zero_and_flat(builder, minimiser):
    dataset = builder(start=minimiser)
    value, gradient = value_and_gradient(dataset)
    assert value == dataset.task.optimum.value == 0
    assert not gradient.any()
    assert metrics_of(dataset.task, build(dataset, build_point), [dataset.train]) == {"distance": 0.0}


def test_distance_is_that_from_the_minimiser():
    dataset = build_beale(start=[0.0, 4.5])
    assert metrics_of(dataset.task, build(dataset, build_point), [dataset.train])["distance"] == 5


def test_lbfgs_finds_the_minimum_of_rosenbrock():
    dataset = build_rosenbrock(dimension=4)
    assert minimise(dataset, build(dataset, build_point), 10) < 1e-10


def test_a_step_from_the_usual_start_of_rastrigin_ends_in_a_local_minimum():
    dataset = build_rastrigin()
    assert minimise(dataset, build(dataset, build_point), 5) == pytest.approx(7.96, abs=0.01)


def test_spread_moves_the_start_by_the_seed():
    dataset = build_quadratic()
    model = build(dataset, build_point, spread=0.5)
    start = dataset.train[0]
    moved = (model(start) - start).detach()
    assert 0.3 < moved.std().item() < 0.7
    assert torch.equal(build(dataset, build_point)(start), start)


@pytest.mark.parametrize("builder", [build_rosenbrock, build_rastrigin, build_quadratic])
@pytest.mark.parametrize("dimension", [0, 2.0, 10**9])
def test_dimensions_out_of_range_are_refused(builder, dimension):
    with pytest.raises(XbenchError, match=r"dimension = .* is not valid"):
        builder(dimension=dimension)


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_start_of_another_dimension_is_refused(builder):
    with pytest.raises(XbenchError, match="start has 3 coordinates, and the function"):
        builder(start=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("builder", [build_rosenbrock, build_beale, build_rastrigin])
def test_a_start_that_is_not_finite_is_refused(builder):
    with pytest.raises(XbenchError, match="coordinate of start = inf is not valid"):
        builder(start=[1.0, math.inf])


def test_quadratics_that_take_too_long_to_rotate_are_refused():
    with pytest.raises(XbenchError, match="dimension = 501 is not valid"):
        build_quadratic(dimension=501)
    assert build_quadratic(dimension=501, rotated=False).train[0].shape == (1, 501)


@pytest.mark.parametrize("settings", [{"condition": 0.0}, {"seed": -1}])
def test_settings_of_a_quadratic_out_of_range_are_refused(settings):
    with pytest.raises(XbenchError, match="is not valid"):
        build_quadratic(**settings)


def test_rows_are_told_apart_by_every_setting():
    settings = [{}, {"dimension": 3}, {"condition": 5.0}, {"rotated": False}, {"seed": 1}]
    rows = {tuple(part.numpy().tobytes() for part in build_quadratic(**one).train) for one in settings}
    assert len(rows) == len(settings)
