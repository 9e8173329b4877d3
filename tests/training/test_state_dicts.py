"""A state dict is all that is saved of a model; one that keeps state elsewhere is found out."""

from __future__ import annotations

import os
import weakref

import pytest
import torch
from torch import nn

from tests.training.small_cells import small_cnn
from xbench import ModelSpec, XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.training.job import CellJob
from xbench.training.prepare_rows import prepare_rows
from xbench.training.row_set import load_row_set
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.state_dicts import hash_tensors, load_state, save_state, try_saving

ELSEWHERE = "a new model that loads its state dict gives different outputs"


class Scaled(nn.Module):
    """Multiplies logits by a number that grows as it is trained."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.net = small_cnn(num_classes)

    def count(self) -> float:
        raise NotImplementedError

    def forward(self, images):
        return self.net(images) * (1 + 0.1 * self.count())


class InAttribute(Scaled):
    calls = 0

    def count(self):
        self.calls += self.training
        return self.calls


class InTensor(Scaled):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.seen = [torch.zeros(())]

    def count(self):
        self.seen[0] += self.training
        return self.seen[0].clone()


class InUnsavedBuffer(Scaled):
    is_saved = False

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.register_buffer("seen", torch.zeros(()), persistent=self.is_saved)

    def count(self):
        self.seen += self.training
        return self.seen.clone()


class InSavedBuffer(InUnsavedBuffer):
    is_saved = True


class WithOwnGenerator(Scaled):
    """Draws in training alone."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.generator = torch.Generator()

    def count(self):
        return torch.rand((), generator=self.generator) if self.training else 0.0


class Growing(InSavedBuffer):
    def count(self):
        if self.training:
            self.seen = torch.cat([self.seen.view(-1), torch.ones(1)])
        return self.seen.sum()


class Harmless(Scaled):
    """Counts for nobody, draws masks, normalises, and holds what stays the same."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.2), self.net)
        self.calls, self.scale, self.file = 0, lambda images: 2 * images, open(os.devnull)  # noqa: SIM115

    def forward(self, images):
        self.calls += 1
        return self.net(self.scale(images))


class NeedsGradients(Scaled):
    """Looks at its own gradients in training mode."""

    def forward(self, images):
        if not self.training:
            return self.net(images)
        given = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.net(given).sum(), given)
        return self.net(images) + slope.mean()


def measure(monkeypatch, data, factory, selection="last", resumable=True):
    """The memory pass of a cell."""
    load, spec = registry.load, ModelSpec(factory=factory, resumable=resumable)
    monkeypatch.setattr(
        registry, "load", lambda kind, name, dirs=(): spec if name == "other" else load(kind, name, dirs)
    )
    training = TrainingSettings(batch_size=10, train_size=40, selection=selection)
    settings = CellSettings(Choice("other", {}), Choice("sgd", {"lr": 0.01}), training, 0, "cpu")
    return TrainingWorkload(CellJob(settings, data), Axis.MICRO_BATCH).take_pass(10)


@pytest.mark.parametrize("factory", [InAttribute, InTensor, InUnsavedBuffer, WithOwnGenerator])
def test_state_elsewhere_is_found(monkeypatch, tiny_data, factory):
    reason = measure(monkeypatch, tiny_data, factory).not_resumable
    assert ELSEWHERE in reason
    assert "resumable=False" in reason


def test_a_full_disk_says_nothing_of_the_model(monkeypatch, tiny_data):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xbench.training.state_dicts.save_state", fail)
    with pytest.raises(OSError, match="No space"):
        measure(monkeypatch, tiny_data, small_cnn)


@pytest.mark.parametrize("selection", ["last", "validation_loss"])
@pytest.mark.parametrize("factory", [small_cnn, InSavedBuffer, Harmless, NeedsGradients])
def test_state_in_the_state_dict_is_saved(monkeypatch, tiny_data, factory, selection):
    assert measure(monkeypatch, tiny_data, factory, selection).not_resumable == ""


def test_a_declaration_needs_no_finding(monkeypatch, tiny_data):
    for factory in (small_cnn, InAttribute):
        measured = measure(monkeypatch, tiny_data, factory, resumable=False)
        assert measured.not_resumable == "its ModelSpec says resumable=False"


@pytest.mark.parametrize("resumable", [True, False])
def test_a_selected_epoch_that_would_not_come_back_is_refused(monkeypatch, tiny_data, resumable):
    with pytest.raises(XbenchError, match=f'selection = "last" restores none.*{ELSEWHERE}'):
        measure(monkeypatch, tiny_data, InAttribute, "validation_loss", resumable)


def test_state_that_matters_in_training_alone_does_not_hinder_selection(monkeypatch, tiny_data):
    assert ELSEWHERE in measure(monkeypatch, tiny_data, WithOwnGenerator, "validation_loss").not_resumable


def test_a_state_dict_that_does_not_load_is_found(monkeypatch, tiny_data):
    reason = measure(monkeypatch, tiny_data, Growing).not_resumable
    assert "its state dict cannot be saved and loaded: RuntimeError: Error(s) in loading" in reason
    with pytest.raises(XbenchError, match=r'selection = "last" restores none.*in loading'):
        measure(monkeypatch, tiny_data, Growing, "validation_loss")


def test_too_little_memory_for_the_check_is_not_the_cells(monkeypatch, tiny_data):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr("xbench.training.state_dicts.load_state", fail)
    assert "memory ran out" in measure(monkeypatch, tiny_data, small_cnn).not_resumable


def test_the_trained_model_makes_room_for_the_fresh_one(monkeypatch, tiny_data):
    made, beside = weakref.WeakSet(), []

    def build(num_classes):
        beside.append(len(made))
        made.add(model := small_cnn(num_classes))
        return model

    measure(monkeypatch, tiny_data, build, "validation_loss")
    assert beside[-1] == 0


def test_what_was_saved_comes_back_into_the_same_parameters(tmp_path):
    torch.manual_seed(0)
    model = InSavedBuffer(2)
    weight = model.net[0].weight
    save_state(model, tmp_path / "model.pt")
    before = hash_tensors(model)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor += 1
    assert hash_tensors(model) != before
    load_state(model, tmp_path / "model.pt")
    assert hash_tensors(model) == before
    assert model.net[0].weight is weight


def test_a_link_to_what_was_saved_before_keeps_it(tmp_path):
    model, path, link = nn.Linear(1, 1), tmp_path / "model.pt", tmp_path / "link.pt"
    save_state(model, path)
    os.link(path, link)
    before = hash_tensors(model)
    with torch.no_grad():
        model.weight += 1
    save_state(model, path)
    load_state(model, link)
    assert hash_tensors(model) == before


def test_trying_changes_nothing(tmp_path):
    model = InSavedBuffer(2)
    before = hash_tensors(model)
    try_saving(model, tmp_path / "model.pt")
    assert hash_tensors(model) == before


def test_digest_tells_weights_and_buffers():
    torch.manual_seed(0)
    model = InUnsavedBuffer(2)
    first = hash_tensors(model)
    model.seen += 1
    second = hash_tensors(model)
    with torch.no_grad():
        model.net[0].bias[0] += 1
    assert len({first, second, hash_tensors(model)}) == 3


@pytest.mark.parametrize(("dataset", "model"), [("poisson-1d", "mlp"), ("rosenbrock", "point")])
def test_rows_are_not_taken_for_pairs_of_images_and_labels(dataset, model):
    rows = load_row_set(dataset, {}, ())
    data = prepare_rows(rows, dataset, {}, "")
    training = TrainingSettings(
        batch_size="full", train_size=data.train_rows, selection="last", validation=0.0
    )
    settings = CellSettings(Choice(model, {}), Choice("sgd", {"lr": 0.001}), training, 0, "cpu")
    measured = TrainingWorkload(CellJob(settings, data), Axis.MICRO_BATCH).take_pass(data.train_rows)
    assert measured.not_resumable == ""
