"""The CUDA path: run by hand on a machine that has a GPU, skipped elsewhere.

pytest tests/gpu
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from xbench import XbenchError
from xbench.capacity.axes import Axis
from xbench.capacity.probe import find_capacity
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.components.specs import ModelSpec
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.planning.datasets import prepare_dataset
from xbench.planning.machine import describe_machine
from xbench.training.cell import train_cell
from xbench.training.events import StepsDone
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.units import DeviceChoice

# The count is asked of the driver: no CUDA context is made in this process.
pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="no CUDA device")

LBFGS = Choice("lbfgs", {"history_size": 4, "max_iter": 4, "line_search_fn": "strong_wolfe"})
FULL_BATCH = TrainingSettings(batch_size="full")


def small_cnn(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(64, num_classes)
    )


def train_small(send, optimizer, training, data, scratch):
    """A cell with the small model, in the child that calls this."""
    real_load = registry.load
    registry.load = lambda kind, name, dirs=(): (
        ModelSpec(factory=small_cnn) if name == "small" else real_load(kind, name, dirs)
    )
    settings = CellSettings(Choice("small", {}), optimizer, training, 0, "cuda:0")
    return train_cell(send, CellJob(settings, data, scratch=Path(scratch)))


def run(optimizer, data, tmp_path, limit_bytes=None, **training):
    messages = []
    ending = run_in_child(
        train_small,
        optimizer,
        TrainingSettings(**{"epochs": 2, "batch_size": 5, **training}),
        data,
        str(tmp_path),
        on_message=messages.append,
        limits=Limits("cuda:0", memory_bytes=limit_bytes),
    )
    return ending, [row for m in messages if isinstance(m, StepsDone) for row in m.rows]


def test_a_cell_trains_and_its_device_memory_is_recorded(tiny_data, tmp_path):
    ending, rows = run(Choice("adam", {"lr": 1e-2}), tiny_data, tmp_path)
    assert ending.outcome == "returned", ending.stderr
    assert ending.value.status == "done"
    assert ending.value.memory.peak_device_bytes == max(row.device_peak_bytes for row in rows) > 0
    assert all(row.device_reserved_bytes >= row.device_peak_bytes for row in rows)
    assert all(0 < row.wall_s < 60 for row in rows)


def test_micro_batches_give_the_same_curve_in_float64(tiny_data, tmp_path):
    settings = {"batch_size": "full", "dtype": "float64", "epochs": 4}
    whole_ending, whole = run(LBFGS, tiny_data, tmp_path, **settings)
    parts_ending, parts = run(LBFGS, tiny_data, tmp_path, micro_batch=16, **settings)
    assert (whole_ending.outcome, parts_ending.outcome) == ("returned", "returned")
    assert [row.loss for row in parts] == pytest.approx([row.loss for row in whole], rel=1e-8)


def test_a_limit_is_an_out_of_memory_error(tiny_data, tmp_path):
    ending, _ = run(LBFGS, tiny_data, tmp_path, limit_bytes=1 << 20, batch_size="full")
    assert ending.outcome == "failed"
    assert ending.out_of_memory


def test_the_machine_is_described():
    machine = run_in_child(describe_machine, DeviceChoice()).get()
    assert machine.device == "cuda:0"
    assert machine.device_facts["total_bytes"] > 0
    with pytest.raises(XbenchError, match="cuda:99"):
        run_in_child(describe_machine, DeviceChoice("cuda", 99)).get()


def test_a_probe_ends_with_a_size_that_ran_and_one_that_did_not(tiny_data):
    settings = CellSettings(Choice("report-cnn", {}), Choice("adam", {}), FULL_BATCH, 0, "cuda:0")
    data = run_in_child(prepare_dataset, Choice("synthetic-xray", {"train": 64, "test": 8}), False, ()).get()
    workload = TrainingWorkload(CellJob(settings, data), Axis.BATCH_SIZE)
    capacity = find_capacity(workload, Limits("cuda:0", memory_bytes=2 << 30))
    assert capacity.fails - capacity.found <= max(1, capacity.found // 100)
    assert capacity.peak_bytes <= 2 << 30
    assert {trial.outcome for trial in capacity.trials} == {"fits", "oom"}


def memory_pass_of(send, settings, data):
    return TrainingWorkload(CellJob(settings, data), Axis.BATCH_SIZE).prepare()(10)


def test_the_parts_of_a_device_peak_add_up():
    settings = CellSettings(
        Choice("report-cnn", {}), Choice("adam", {}), TrainingSettings(batch_size=10), 0, "cuda:0"
    )
    data = run_in_child(prepare_dataset, Choice("synthetic-xray", {"train": 64, "test": 8}), False, ()).get()
    measured = run_in_child(memory_pass_of, settings, data).get()
    parts = ("process", "parameters", "data", "gradients", "optimizer_state", "optimizer_work", "activations")
    assert sum(getattr(measured, f"{part}_bytes") for part in (*parts, "keeping")) == measured.peak_bytes
    assert measured.final_state_bytes == pytest.approx(2 * measured.parameters_bytes, rel=0.05)


def features_of(send, precision, data, cache):
    """Features of a random ResNet's backbone from the cache, and what it gives without."""
    import os

    import numpy as np

    from xbench.training.features import make_features
    from xbench.training.frozen import Backbone
    from xbench.training.loader import FeatureLoader, ImageLoader
    from xbench.training.model import build_model

    model, training = (
        Choice("torchvision/resnet18", {"pretrained": False}),
        TrainingSettings(features=precision),
    )
    settings = CellSettings(model, Choice("sgd", {}), training, 0, "cuda:0")
    images = np.arange(len(data.rows))
    os.environ["XBENCH_CACHE_DIR"] = cache  # this process is the fork server's child, not the test's
    report = make_features(send, settings, data, images)
    spec, device = registry.load("model", model.name), torch.device("cuda:0")
    loader = FeatureLoader(data, report.file, device, torch.float32, "channels_last")
    kept, _ = loader.load(images)
    loader = ImageLoader(data, spec, device, torch.float32, "channels_last")
    computed = Backbone(build_model(spec, settings, data))(loader.load(images)[0])
    return report.computed, kept.cpu().numpy(), computed.cpu().numpy()


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_features_are_what_the_frozen_part_gives(tiny_data, tmp_path, precision, rounding):
    count, kept, computed = run_in_child(features_of, precision, tiny_data, str(tmp_path)).get()
    assert count == len(tiny_data.rows)
    assert abs(kept - computed).max() <= rounding * abs(computed).max()


def test_what_limits_memory_is_the_device():
    machine = run_in_child(describe_machine, DeviceChoice("cuda")).get()
    total = machine.device_facts["total_bytes"]
    assert {bound.source for bound in machine.memory_bounds} == {"device memory"}
    assert all(0 < bound.limit_bytes <= total for bound in machine.memory_bounds)
