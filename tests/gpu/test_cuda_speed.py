"""Steps that never wait, TF32, and rehearsed kernels on a CUDA device: skipped where there is none."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xbench import ModelSpec
from xbench.components import registry
from xbench.components.classification import classification
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.training import cell
from xbench.training.closure import AccumulatingClosure
from xbench.training.evaluation import evaluate
from xbench.training.events import StepsDone
from xbench.training.job import CellJob
from xbench.training.loader import ImageLoader, ResidentImageLoader
from xbench.training.model import build_model
from xbench.training.objective import Objective
from xbench.training.settings import CellSettings, Choice, TrainingSettings

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="no CUDA device")

LIMITS = Limits("cuda:0")
LOADERS = {"uint8": ImageLoader, "float32": ResidentImageLoader}
# The device is kept busy for so long, some tenths of a second, while the host goes on.
BUSY_CYCLES = 300_000_000


def small_cnn(num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16 * 144, num_classes)
    )


SMALL = ModelSpec(factory=small_cnn)


def call(job, *args):
    ending = run_in_child(job, *args, limits=LIMITS)
    assert ending.outcome == "returned", ending.stderr
    return ending.value


def loader_of(storage, data, device="cuda:0"):
    return LOADERS[storage](data, SMALL, torch.device(device), torch.float32, "contiguous")


def objective_of(data, device):
    return Objective(classification(data.classes), data, {}, device, torch.float32)


def parts_of(storage, data):
    loader = loader_of(storage, data)
    return small_cnn(2).to(loader.device), loader, objective_of(data, loader.device)


def steps_without_waiting(send, storage, optimizer, micro_batch, data):
    model, loader, objective = parts_of(storage, data)
    closure = AccumulatingClosure(model, loader, objective, micro_batch, seed=0)
    stepper = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-2)
    losses = []
    for step in range(1, 9):
        torch.cuda.set_sync_debug_mode(
            "error" if step > 2 else "default"
        )  # libraries set themselves up first
        closure.start(step, np.arange(step, step + 20))
        stepper.step(closure)
        losses.append(closure.first_loss)
    torch.cuda.set_sync_debug_mode("default")
    return torch.stack(losses).tolist()


@pytest.mark.parametrize("storage", LOADERS)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_the_host_never_waits_in_a_step(tiny_data, storage, optimizer, micro_batch):
    losses = call(steps_without_waiting, storage, optimizer, micro_batch, tiny_data)
    assert len(set(losses)) == 8
    assert np.isfinite(losses).all()


def waits_of_an_evaluation(send, storage, data):
    model, loader, objective = parts_of(storage, data)
    everything = np.arange(len(data.labels))
    evaluate(model, loader, objective, everything, 7, "test", collects=True)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = evaluate(model, loader, objective, everything, 7, "test", collects=True)
    torch.cuda.set_sync_debug_mode("default")
    on_host = evaluate(
        model.cpu(),
        loader_of(storage, data, "cpu"),
        objective_of(data, torch.device("cpu")),
        everything,
        7,
        "test",
        collects=True,
    )
    return sum("synchroniz" in str(warning.message) for warning in caught), found, on_host


@pytest.mark.parametrize("storage", LOADERS)
def test_the_host_waits_once_in_an_evaluation(tiny_data, storage):
    waits, found, on_host = call(waits_of_an_evaluation, storage, tiny_data)
    assert waits == 1
    assert np.allclose(found.collected["logit"], on_host.collected["logit"], atol=1e-4)
    labels = [evaluation.collected["label"].tolist() for evaluation in (found, on_host)]
    assert labels == [tiny_data.labels.tolist()] * 2
    assert found.averages == pytest.approx(on_host.averages)
    assert found.loss == pytest.approx(on_host.loss, rel=1e-4)


def differing_batches(send, storage, data):
    """Batches that are asked for while the device has not yet taken those before."""
    here, there = loader_of(storage, data, "cpu"), loader_of(storage, data)
    random = np.random.default_rng(0)
    batches = [random.integers(0, len(data.labels), 5) for _ in range(12)]
    torch.cuda._sleep(BUSY_CYCLES)
    loaded = [there.load(batch) for batch in batches]
    differing = 0
    for batch, (images, labels) in zip(batches, loaded, strict=True):
        expected, classes = here.load(batch)
        same = torch.allclose(images.cpu(), expected, atol=1e-6) and torch.equal(labels.cpu(), classes)
        differing += not same
    return differing, there.pinned_bytes, there.resident_bytes


@pytest.mark.parametrize("storage", LOADERS)
def test_no_batch_is_overwritten_on_its_way(tiny_data, storage):
    differing, pinned_bytes, resident_bytes = call(differing_batches, storage, tiny_data)
    assert differing == 0
    assert pinned_bytes > 0
    images_bytes = tiny_data.labels.size * tiny_data.row_bytes * 4 if storage == "float32" else 0
    assert resident_bytes == images_bytes + tiny_data.labels.nbytes


def errors_with(send, tf32, data):
    """Relative errors of a matrix product and a convolution after a cell's model was built."""
    registry_load = registry.load
    registry.load = lambda kind, name, dirs=(): SMALL if name == "small" else registry_load(kind, name, dirs)
    training = TrainingSettings(tf32=tf32)
    build_model(SMALL, CellSettings(Choice("small", {}), Choice("sgd", {}), training, 0, "cuda:0"), data)
    torch.manual_seed(1)
    matrix = torch.randn(512, 512, device="cuda")
    images, kernels = torch.randn(8, 64, 32, 32, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
    pairs = [
        (matrix @ matrix, matrix.double() @ matrix.double()),
        (torch.conv2d(images, kernels), torch.conv2d(images.double(), kernels.double())),
    ]
    errors = [float((found - exact).abs().max() / exact.abs().max()) for found, exact in pairs]
    return errors, torch.cuda.get_device_capability() >= (8, 0)


def test_tf32_is_off_unless_it_is_asked_for(tiny_data):
    errors, _ = call(errors_with, False, tiny_data)
    assert max(errors) < 2e-5


def test_tf32_is_of_matrix_products_and_convolutions_alike(tiny_data):
    errors, has_tf32 = call(errors_with, True, tiny_data)
    if not has_tf32:
        pytest.skip("a GPU without TF32")
    assert all(5e-5 < error < 1e-2 for error in errors)


def train(send, optimizer, rehearses, data, scratch):
    registry_load = registry.load
    registry.load = lambda kind, name, dirs=(): SMALL if name == "small" else registry_load(kind, name, dirs)
    called = []
    real = cell.rehearse
    cell.rehearse = lambda *args: (called.append(1), real(*args) if rehearses else None)
    training = TrainingSettings(epochs=2, batch_size=15, micro_batch=6, deterministic=True)
    settings = CellSettings(Choice("small", {}), optimizer, training, 0, "cuda:0")
    result = cell.train_cell(send, CellJob(settings, data, scratch=Path(scratch)))
    return len(called), result.status, result.scores.collected["logit"].tolist(), result.memory.pinned_bytes


@pytest.mark.parametrize(
    "optimizer",
    [Choice("adam", {"lr": 1e-2}), Choice("lbfgs", {"history_size": 3, "max_iter": 3})],
    ids=["adam", "lbfgs"],
)
def test_a_rehearsal_changes_no_result(tiny_data, tmp_path, optimizer):
    def run(rehearses):
        messages = []
        ending = run_in_child(
            train,
            optimizer,
            rehearses,
            tiny_data,
            str(tmp_path),
            on_message=messages.append,
            limits=LIMITS,
        )
        assert ending.outcome == "returned", ending.stderr
        assert "rehearsal failed" not in ending.stderr
        return ending.value, [row.loss for m in messages if isinstance(m, StepsDone) for row in m.rows]

    (found, losses), without = run(True), run(False)
    assert (found, losses) == without
    assert found[:2] == (1, "done")
    assert found[3] > 0
