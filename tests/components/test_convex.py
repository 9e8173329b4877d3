"""Convex problems: their minimum is what other solvers find, and their losses are what the docstring says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear, minimize

from tests.components.row_samples import build, loss_of, metrics_of, minimise
from xbench.components.convex import build_least_squares, build_logistic_regression, draw_features, rotate
from xbench.components.convex_minima import solve_least_squares, solve_logistic_regression
from xbench.components.row_models import build_linear, build_mlp
from xbench.errors import XbenchError

BUILDERS = [build_least_squares, build_logistic_regression]


def rows_of(dataset):
    inputs, target = dataset.train
    return inputs.numpy(), target.numpy()[:, 0]


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_the_minimum_of_least_squares_is_that_of_another_solver(l2):
    dataset = build_least_squares(rows=50, features=6, condition=100.0, l2=l2)
    inputs, target = rows_of(dataset)
    penalty_rows = np.sqrt(l2 * len(inputs) / 2) * np.eye(6)
    solved = lsq_linear(
        np.vstack([inputs, penalty_rows]), np.concatenate([target, np.zeros(6)]), tol=1e-14
    ).cost * (2 / len(inputs))
    assert dataset.task.optimum.value == pytest.approx(solved, rel=1e-10)


def test_the_minimum_of_a_fit_without_error_is_zero_within_its_bound():
    inputs = draw_features(30, 5, 10.0, np.random.default_rng(0))
    optimum, _ = solve_least_squares(inputs, inputs @ np.arange(5.0), 0.0)
    assert 0 <= optimum.value <= optimum.error < 1e-13


def test_the_minimum_of_logistic_regression_is_that_of_another_solver():
    dataset = build_logistic_regression(rows=60, features=4, condition=10.0, l2=0.01)
    inputs, labels = rows_of(dataset)
    signs = 2 * labels - 1

    def value(weights):
        return np.logaddexp(0, -signs * (inputs @ weights)).mean() + 0.005 * weights @ weights

    solved = minimize(value, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
    assert dataset.task.optimum.value == pytest.approx(solved.fun, abs=1e-10)
    assert dataset.task.optimum.error < 1e-12


def test_one_feature_that_says_nothing_has_a_minimum_of_log_2():
    optimum, condition = solve_logistic_regression(np.ones((2, 1)), np.array([0.0, 1.0]), 0.5)
    assert optimum.value == pytest.approx(np.log(2), abs=1e-15)
    assert condition == 1


def test_separable_classes_with_a_weak_penalty_converge():
    inputs = np.array([[-1.0], [1.0]])
    optimum, _ = solve_logistic_regression(inputs, np.array([0.0, 1.0]), 1e-6)

    def value(weight):
        return np.log1p(np.exp(-weight)) + 5e-7 * weight**2

    weights = np.linspace(5, 15, 1001)
    assert optimum.value <= value(weights).min() + optimum.error
    assert optimum.value == pytest.approx(value(weights).min(), rel=1e-3)


@pytest.mark.parametrize("builder", BUILDERS)
def test_lbfgs_comes_within_1e_10_of_the_minimum(builder):
    dataset = builder(rows=100, features=5, condition=10.0)
    model = build(dataset, build_linear)
    options = {"history_size": 10, "max_iter": 30, "tolerance_grad": 1e-12, "tolerance_change": 1e-15}
    reached = minimise(dataset, model, 3, **options)
    optimum = dataset.task.optimum
    assert -optimum.error - 1e-14 <= reached - optimum.value < 1e-10


@pytest.mark.parametrize("builder", BUILDERS)
def test_gradients_are_those_of_the_closed_form(builder):
    dataset = builder(rows=40, features=3, condition=10.0, l2=0.3)
    model = build(dataset, build_linear)
    weights = np.array([0.5, -1.0, 2.0])
    (parameter,) = model.parameters()
    parameter.data = torch.from_numpy(weights[None])
    loss_of(dataset.task, model, dataset.train).backward()
    inputs, target = rows_of(dataset)
    outputs = inputs @ weights
    errors = 2 * (outputs - target) if builder is build_least_squares else 1 / (1 + np.exp(-outputs)) - target
    expected = inputs.T @ errors / 40 + 0.3 * weights
    np.testing.assert_allclose(parameter.grad[0], expected, rtol=1e-12)


def test_a_logistic_regression_starts_from_log_2():
    dataset = build_logistic_regression(rows=30, features=3)
    model = build(dataset, build_linear)
    assert loss_of(dataset.task, model, dataset.train).item() == pytest.approx(np.log(2))


def test_accuracy_counts_rows_on_the_right_side():
    dataset = build_logistic_regression(rows=200, features=3, condition=1.0)
    model = build(dataset, build_linear)
    minimise(dataset, model, 3)
    inputs, labels = rows_of(dataset)
    (parameter,) = model.parameters()
    right = (inputs @ parameter.detach().numpy()[0] > 0) == (labels == 1)
    assert metrics_of(dataset.task, model, [dataset.train])["accuracy"] == pytest.approx(right.mean())


def test_an_undefined_output_has_no_accuracy():
    (metric,) = build_logistic_regression(rows=3, features=2).task.metrics
    found = metric.value(torch.tensor([[np.nan], [1.0], [1.0]]), (None, torch.tensor([[0.0], [1.0], [0.0]])))
    assert found.isnan().tolist() == [True, False, False]
    assert found[1:].tolist() == [1.0, 0.0]


def test_features_have_the_condition_number_that_was_asked_for():
    features = draw_features(20_000, 5, 100.0, np.random.default_rng(0))
    curvatures = np.linalg.eigvalsh(features.T @ features / len(features))
    assert curvatures[-1] / curvatures[0] == pytest.approx(100, rel=0.1)
    assert curvatures[-1] == pytest.approx(1, rel=0.1)


def test_rotation_keeps_lengths_and_mixes_coordinates():
    matrix = rotate(np.eye(6), np.random.default_rng(1))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=1e-14)
    assert np.abs(matrix).max() < 0.95


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_same_seed_makes_the_same_rows_and_another_seed_others(builder):
    first, again, other = (builder(rows=10, features=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train[0], again.train[0])
    assert torch.equal(first.train[1], again.train[1])
    assert not torch.equal(first.train[0], other.train[0])
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    ("factory", "settings"), [(build_linear, {"bias": True}), (build_mlp, {"hidden": (2,)})]
)
def test_a_model_with_another_minimum_is_refused(builder, factory, settings):
    dataset = builder(rows=10, features=3)
    model = build(dataset, factory, **settings)
    with pytest.raises(XbenchError, match="a linear model of 3 weights, and this model has"):
        loss_of(dataset.task, model, dataset.train)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"rows": 0},
        {"rows": 1.5},
        {"features": 0},
        {"features": True},
        {"condition": 0.5},
        {"condition": float("nan")},
        {"l2": -1.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(builder, settings):
    (name,) = settings
    with pytest.raises(XbenchError, match=f": {name} = .* is not valid") as caught:
        builder(**settings)
    assert caught.value.hint.startswith(f"set {name} to")


def test_a_logistic_regression_needs_a_penalty():
    with pytest.raises(XbenchError, match="l2 = 0"):
        build_logistic_regression(l2=0)


def test_fewer_rows_than_features_need_a_penalty():
    with pytest.raises(XbenchError, match="3 rows do not determine 5 weights"):
        build_least_squares(rows=3, features=5)
    assert build_least_squares(rows=3, features=5, l2=0.1).task.optimum.value > 0
