"""The CUDA path: run by hand on a machine that has a GPU, skipped elsewhere.

pytest tests/gpu
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xbench import XbenchError
from xbench.components import registry
from xbench.components.specs import ModelSpec
from xbench.execution.inspection import describe_machine
from xbench.isolation.child import Limits
from xbench.isolation.run import call_in_child, run_in_child
from xbench.training.cell import train_cell
from xbench.training.events import StepsDone
from xbench.training.settings import CellSettings, Choice, TrainingSettings

# The count is asked of the driver: no CUDA context is made in this process.
pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="no CUDA device")

LBFGS = Choice("lbfgs", {"history_size": 4, "max_iter": 4, "line_search_fn": "strong_wolfe"})


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
    return train_cell(
        send, CellSettings(Choice("small", {}), optimizer, training, 0, "cuda:0"), data, scratch
    )


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
    machine = call_in_child(describe_machine, "auto")
    assert machine.device == "cuda:0"
    assert machine.device_facts["total_bytes"] > 0
    with pytest.raises(XbenchError, match="cuda:99"):
        call_in_child(describe_machine, "cuda:99")
