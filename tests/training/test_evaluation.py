"""What evaluation draws, divides by and refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.row_parts import loader_and_objective
from xbench import Metric, Optimum, RowDataset, Task, XbenchError
from xbench.training.evaluation import evaluate
from xbench.training.scores import subtract_optimum

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
ROWS = np.arange(12)


class Noisy(nn.Module):
    """Adds noise in evaluation, too, as a variational autoencoder does."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 1)
        nn.init.ones_(self.last.weight)

    def forward(self, x):
        return self.last(x + torch.randn_like(x))[:, 0]


def squares(model, batch):
    return model(batch).square()


def evaluate_rows(task, model=None, rows=ROWS, chunk=5, **options):
    return evaluate(
        model or nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double(),
        *loader_and_objective(RowDataset(train=X, task=task)),
        rows,
        chunk,
        "train",
        **options,
    )


class TestNoise:
    def test_is_the_same_whenever_a_model_is_evaluated(self):
        task, model = Task(loss=squares), Noisy().double()
        losses = {evaluate_rows(task, model, seed=3).loss for _ in range(3)}
        assert len(losses) == 1
        assert evaluate_rows(task, model, seed=4).loss not in losses

    def test_differs_between_chunks(self):
        task = Task(loss=lambda model, batch: model(batch * 0))
        losses = evaluate_rows(task, Noisy().double(), chunk=2, collects=True).losses
        assert len(set(losses.tolist())) == len(ROWS)

    def test_leaves_the_generators_as_they_were(self):
        model = Noisy().double()
        before = torch.get_rng_state()
        evaluate_rows(Task(loss=squares), model)
        assert torch.equal(torch.get_rng_state(), before)


def test_rows_without_any_weight_have_no_loss():
    task = Task(
        loss=lambda model, batch: squares(model, batch) * (batch[:, 0] > 0),
        weight=lambda batch: batch[:, 0] > 0,
        metrics=(Metric(name="error", direction="min", value="loss", weighted=True),),
    )
    found = evaluate_rows(task, rows=np.flatnonzero(X[:, 0].numpy() <= 0))
    assert math.isnan(found.loss)
    assert math.isnan(found.averages["error"])
    assert evaluate_rows(task).loss > 0


class TestRefused:
    def test_are_fewer_losses_than_rows(self):
        """The first rows have a label each, so that no check before the run finds it."""

        def loss(model, batch):
            return squares(model, batch)[batch[:, 0] < X[8, 0]]

        with pytest.raises(XbenchError, match=r"returns \d losses for 5 rows"):
            evaluate_rows(Task(loss=loss))

    def test_are_metrics_without_a_number_for_each_row(self):
        metric = Metric(name="m", direction="min", value=lambda outputs, batch: outputs[:1])
        with pytest.raises(XbenchError, match=r"metric 'm' returns a tensor of shape \(1,\) for 5 rows"):
            evaluate_rows(Task(loss=squares, metrics=(metric,)))


class TestTheDistanceFromTheMinimum:
    def test_is_the_difference(self):
        assert subtract_optimum(1.5, Optimum(1.0), torch.float32) == 0.5
        assert subtract_optimum(0.5, Optimum(1.0), torch.float32) == -0.5
        assert subtract_optimum(1e-17, Optimum(0.0), torch.float64) == 1e-17

    def test_is_0_if_rounding_or_the_error_of_the_minimum_makes_it_negative(self):
        assert subtract_optimum(1 - 1e-7, Optimum(1.0), torch.float32) == 0
        assert subtract_optimum(1 - 1e-7, Optimum(1.0), torch.float64) < 0
        assert subtract_optimum(1 - 1e-7, Optimum(1.0, error=1e-6), torch.float64) == 0
        assert subtract_optimum(1 + 1e-7, Optimum(1.0), torch.float32) > 0
