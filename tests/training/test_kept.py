"""A model that is kept at one epoch and brought back later is the same, wherever it keeps its state."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from xbench import XbenchError
from xbench.training.kept import KeptModel, tensors_digest


class Counting(nn.Module):
    """Changes all that a module can: parameters, both kinds of buffers, and plain attributes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("saved", torch.zeros(2))
        self.register_buffer("unsaved", torch.zeros(2), persistent=False)
        self.register_buffer("growing", torch.zeros(1))
        self.average = 0.0
        self.history = [torch.zeros(1)]
        self.lock = threading.Lock()  # cannot be copied, and need not be

    def train_once(self):
        with torch.no_grad():
            self.linear.weight += 1
            self.saved += 1
            self.unsaved += 1
            self.growing = torch.cat([self.growing, torch.ones(1)])
        self.average += 0.5
        self.history.append(torch.ones(1) * self.average)

    def forward(self, x):
        return (
            self.linear(x) + self.saved + self.unsaved + self.growing.sum() + self.average + sum(self.history)
        )


def test_all_that_changes_comes_back(tmp_path):
    model = Counting()
    kept = KeptModel(model, tmp_path / "selected.pt")
    model.train_once()
    kept.save()
    expected = model(torch.ones(1, 2))
    for _ in range(3):
        model.train_once()
    assert not torch.equal(model(torch.ones(1, 2)), expected)
    kept.load()
    assert torch.equal(model(torch.ones(1, 2)), expected)
    assert model.growing.shape == (2,)


def test_what_changes_later_alone_comes_back_too(tmp_path):
    """Kept before anything has changed, as the first epoch may be."""
    model = Counting()
    model.register_buffer("later", None)
    kept = KeptModel(model, tmp_path / "selected.pt")
    kept.save()
    expected = model(torch.ones(1, 2))
    model.train_once()
    model.later, model.new = torch.ones(2), "set in a later epoch"
    kept.load()
    assert torch.equal(model(torch.ones(1, 2)), expected)
    assert model.later is None
    assert not hasattr(model, "new")


def test_attributes_that_refer_to_the_model_still_do(tmp_path):
    model = Counting()
    model.named = {"weight": model.linear.weight, "layer": [model.linear]}
    kept = KeptModel(model, tmp_path / "selected.pt")
    kept.save()
    kept.load()
    assert model.named["weight"] is model.linear.weight
    assert model.named["layer"][0] is model.linear


def test_what_was_kept_does_not_change_with_the_model(tmp_path):
    model = Counting()
    kept = KeptModel(model, tmp_path / "selected.pt")
    model.train_once()
    kept.save()
    for _ in range(2):
        kept.load()
        assert (model.average, len(model.history)) == (0.5, 2)
        model.train_once()


def test_parameters_stay_the_optimizers(tmp_path):
    model = Counting()
    weight = model.linear.weight
    kept = KeptModel(model, tmp_path / "selected.pt")
    kept.save()
    kept.load()
    assert model.linear.weight is weight


def test_trying_changes_nothing(tmp_path):
    model = Counting()
    before = tensors_digest(model)
    KeptModel(model, tmp_path / "selected.pt").try_out()
    assert tensors_digest(model) == before


class Unwilling(nn.Module):
    """Registers a buffer under a name that it gives away again."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def named_buffers(self, *args, **kwargs):
        yield from super().named_buffers(*args, **kwargs)
        yield "elsewhere.buffer", torch.zeros(1)


def test_a_model_that_cannot_be_loaded_back_is_refused(tmp_path):
    with pytest.raises(XbenchError, match="cannot be saved and loaded back") as caught:
        KeptModel(Unwilling(), tmp_path / "selected.pt").try_out()
    assert "last" in caught.value.hint


def test_digest_tells_weights_and_buffers():
    torch.manual_seed(0)
    model = Counting()
    first = tensors_digest(model)
    model.unsaved += 1
    second = tensors_digest(model)
    with torch.no_grad():
        model.linear.bias[0] += 1
    assert len({first, second, tensors_digest(model)}) == 3
