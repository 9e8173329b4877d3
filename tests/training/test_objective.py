"""The objective and the evaluation against torch's cross entropy on everything at once, in float64."""

from __future__ import annotations

import re
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from tests.labelled_data import labelled_data
from xbench import ModelSpec, XbenchError
from xbench.components.classification import classification
from xbench.training.evaluation import evaluate
from xbench.training.loader import ImageLoader
from xbench.training.objective import Objective

CPU = torch.device("cpu")
NAMES = ("a", "b", "c", "d")
WEIGHTS = st.floats(1e-3, 1e3)


def objective_of(data, weights, dtype=torch.float64) -> Objective:
    return Objective(classification(data.classes), data, weights, CPU, dtype)


def sum_losses(objective: Objective, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    batch = (torch.empty(0), labels)
    return objective.sum_losses(objective.task.loss_of(logits, batch), batch)


def small_cnn(num_classes: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_classes)
    )


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.data())
def test_a_batch_in_parts_is_torchs_weighted_mean(data):
    width = data.draw(st.integers(2, 4))
    weights = data.draw(st.lists(WEIGHTS, min_size=width, max_size=width))
    labels = np.array(data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=20)))
    row = st.lists(st.floats(-50, 50), min_size=width, max_size=width)
    logits = data.draw(st.lists(row, min_size=len(labels), max_size=len(labels)))
    logits, truth = torch.tensor(logits, dtype=torch.float64), torch.from_numpy(labels)
    named = dict(zip(NAMES, weights, strict=False))
    objective = objective_of(labelled_data(labels, NAMES[:width]), named)

    cut = data.draw(st.integers(0, len(labels)))
    parts = [sum_losses(objective, logits[part], truth[part]) for part in (slice(0, cut), slice(cut, None))]
    expected = cross_entropy(logits, truth, weight=torch.tensor(weights, dtype=torch.float64))
    divisor = objective.divisor(np.arange(len(labels)))
    assert float(sum(parts)) / divisor == pytest.approx(expected.item(), rel=1e-12, abs=1e-15)


def test_classes_that_are_not_named_weigh_1():
    objective = objective_of(labelled_data([0, 1, 1, 2], NAMES[:3]), {"b": 5.0})
    assert objective.divisor(np.array([0, 1, 3])) == 7.0
    assert objective.divisor(np.array([1, 1, 2])) == 15.0  # as an oversampled batch repeats


@pytest.mark.parametrize(("weight", "held"), [(1e-50, "0.0"), (1e39, "inf")])
def test_a_weight_that_float32_cannot_hold(weight, held):
    data = labelled_data([0, 1], NAMES[:2])
    with pytest.raises(XbenchError, match=re.escape(f"class weight {weight} of b is {held} in float32")):
        objective_of(data, {"b": weight}, torch.float32)
    objective_of(data, {"b": weight}, torch.float64)


class TestEvaluation:
    @pytest.fixture
    def model(self):
        torch.manual_seed(4)
        return nn.Sequential(*small_cnn(), nn.Dropout(0.5)).double()

    def parts(self, data, dtype=torch.float64):
        loader = ImageLoader(data, ModelSpec(factory=small_cnn), CPU, dtype, "contiguous")
        return loader, objective_of(data, {"dark": 2.5, "bright": 0.5}, dtype)

    @pytest.mark.parametrize("chunk", [1, 7, 30, 64])
    def test_in_chunks_is_that_of_everything_at_once(self, tiny_data, model, chunk):
        loader, objective = self.parts(tiny_data)
        indices = np.random.default_rng(3).permutation(90)[:30]
        images, labels = loader.load(indices)
        with torch.no_grad():
            logits = model.eval()(images)
        model.train()
        found = evaluate(model, loader, objective, indices, chunk, "test", collects=True)
        expected = cross_entropy(logits, labels, weight=torch.tensor([2.5, 0.5], dtype=torch.float64))
        assert found.loss == pytest.approx(expected.item(), rel=1e-12)
        assert found.collected["label"].tolist() == tiny_data.labels[indices].tolist()
        np.testing.assert_allclose(found.collected["logit"], logits.numpy(), rtol=1e-12)
        unweighted = cross_entropy(logits, labels, reduction="none")
        np.testing.assert_allclose(found.losses, unweighted.numpy(), rtol=1e-12)
        assert found.averages["accuracy"] == float((logits.argmax(dim=1) == labels).double().mean())

    def test_computes_each_cross_entropy_once(self, tiny_data, model, monkeypatch):
        loader, objective = self.parts(tiny_data)
        counted = Mock(wraps=nn.functional.cross_entropy)
        monkeypatch.setattr(nn.functional, "cross_entropy", counted)
        evaluate(model, loader, objective, np.arange(30), 10, "test", collects=True)
        assert counted.call_count == 3  # one for each chunk

    def test_leaves_the_model_training(self, tiny_data, model):
        loader, objective = self.parts(tiny_data)
        model.train()
        evaluate(model, loader, objective, np.arange(5), 2, "validation")
        assert all(module.training for module in model.modules())
        assert all(p.grad is None for p in model.parameters())

    def test_in_float32_sums_in_float64(self, tiny_data):
        """The sum of many chunks is as good as the chunks."""
        loader, objective = self.parts(tiny_data, torch.float32)
        torch.manual_seed(4)
        model, indices = small_cnn(), np.tile(np.arange(90), 2)
        chunk_losses = []
        for index in range(90):
            images, labels = loader.load(np.array([index]))
            chunk_losses.append(sum_losses(objective, model.eval()(images), labels).item())
        found = evaluate(model, loader, objective, indices, 1, "validation")
        expected = sum(chunk_losses) / objective.divisor(np.arange(90))
        assert found.loss == pytest.approx(expected, rel=1e-12)

    def test_precision_is_that_of_training(self, tiny_data, model):
        """Outputs of a float64 model that are equal in float32 are told apart."""
        loader, objective = self.parts(tiny_data)
        with torch.no_grad():
            model[4].weight *= 1e-10
            model[4].bias.fill_(1.0)
        found = evaluate(model, loader, objective, np.arange(30), 8, "test", collects=True)
        logits = found.collected["logit"]
        assert logits.dtype == found.losses.dtype == np.float64
        assert len(np.unique(logits[:, 0])) == 30
        assert len(np.unique(logits[:, 0].astype(np.float32))) == 1
