"""The task of regression: its loss and metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xbench
from xbench.components.classification import classification
from xbench.components.next_token import next_token_task
from xbench.components.regression import penalise_squares, r2, regression, rmse, squared_errors
from xbench.errors import XbenchError


def test_a_row_loses_the_mean_of_its_squared_errors():
    predicted, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert squared_errors(predicted, (None, target)).tolist() == [2.5, 0.5]


def test_shapes_that_torch_would_broadcast_are_refused():
    with pytest.raises(XbenchError, match=r"outputs have the shape \(3,\), and the targets \(3, 1\)"):
        squared_errors(torch.zeros(3), (None, torch.zeros(3, 1)))


def test_r2_of_a_fitted_line_is_the_squared_correlation():
    x, noise = np.random.default_rng(0).normal(size=(2, 20))
    target = 3 * x + noise
    fitted = np.polyval(np.polyfit(x, target, 1), x)
    correlation = np.corrcoef(x, target)[0, 1]
    assert r2((fitted[:, None], target[:, None])) == pytest.approx(correlation**2)


def test_r2_of_several_targets_is_their_mean():
    target = np.array([[0.0, 0.0], [2.0, 4.0]])
    predicted = np.array([[1.0, 0.0], [1.0, 3.0]])  # the first target's mean; an error of 1 in the second
    assert r2((predicted, target)) == pytest.approx((0 + (1 - 1 / 8)) / 2)


def test_r2_of_a_constant_target_is_undefined():
    assert np.isnan(r2((np.zeros((3, 1)), np.ones((3, 1)))))


def test_rmse_is_in_the_original_unit():
    assert rmse((np.array([[1.0], [1.0]]), np.array([[4.0], [5.0]])), scale=2.0) == pytest.approx(50**0.5)


def test_float32_outputs_are_averaged_in_float64():
    predicted = np.full((10, 1), 1e25, dtype=np.float32)
    assert rmse((predicted, np.zeros((10, 1), dtype=np.float32))) == pytest.approx(1e25, rel=1e-6)


def test_undefined_predictions_have_undefined_metrics():
    collected = (np.array([[np.nan], [1.0]]), np.array([[1.0], [2.0]]))
    assert np.isnan(r2(collected)) and np.isnan(rmse(collected))


def test_the_penalty_counts_all_parameters():
    model = torch.nn.Linear(1, 1)
    model.weight.data.fill_(3.0)
    model.bias.data.fill_(1.0)
    assert penalise_squares(model, 0.5).item() == 2.5


def test_the_task_takes_further_fields():
    task = regression(targets=2, scale=3.0, unit="m", facts={"noise": "0"})
    assert task.output.size == 2
    assert task.facts == {"noise": "0"}
    assert task.metrics[1].unit == "m"


@pytest.mark.parametrize("settings", [{"targets": 0}, {"scale": 0.0}, {"scale": float("nan")}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(XbenchError, match="regression"):
        regression(**settings)


def test_usual_tasks_are_public():
    assert xbench.regression is regression
    assert xbench.next_token_task is next_token_task
    assert xbench.classification is classification
    assert {"regression", "next_token_task", "classification"} <= set(dir(xbench))
