"""Deterministic algorithms on a CUDA device: skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from xbench import ModelSpec
from xbench.components import registry
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.training.cell import train_cell
from xbench.training.events import EpochDone, StepsDone
from xbench.training.job import CellJob
from xbench.training.seeding import make_deterministic
from xbench.training.settings import CellSettings, Choice, TrainingSettings

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="no CUDA device")

LIMITS = Limits("cuda:0")


def small_cnn(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 5), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(32 * 144, num_classes)
    )


def train_deterministic(send, optimizer, training, data, scratch):
    """A cell with the small model, in the child that calls this."""
    make_deterministic()
    real_load = registry.load
    registry.load = lambda kind, name, dirs=(): (
        ModelSpec(factory=small_cnn) if name == "small" else real_load(kind, name, dirs)
    )
    settings = CellSettings(
        Choice("small", {}), optimizer, TrainingSettings(deterministic=True, **training), 0, "cuda:0"
    )
    result = train_cell(send, CellJob(settings, data, scratch=Path(scratch)))
    return result.status, result.scores.collected["logit"].tolist(), result.scores.values["test_loss"]


@pytest.mark.parametrize(
    ("optimizer", "training"),
    [
        (Choice("adam", {"lr": 1e-2}), {"epochs": 3, "batch_size": 5}),
        (
            Choice("lbfgs", {"history_size": 4, "max_iter": 4, "line_search_fn": "strong_wolfe"}),
            {"epochs": 3, "batch_size": "full", "micro_batch": 16},
        ),
    ],
    ids=["adam", "lbfgs"],
)
def test_a_cell_repeats_itself_bit_for_bit(tiny_data, tmp_path, optimizer, training):
    def run():
        messages = []
        ending = run_in_child(
            train_deterministic,
            optimizer,
            training,
            tiny_data,
            str(tmp_path),
            on_message=messages.append,
            limits=LIMITS,
        )
        assert ending.outcome == "returned", ending.stderr
        losses = [row.loss for message in messages if isinstance(message, StepsDone) for row in message.rows]
        return ending.value, losses, [m.record for m in messages if isinstance(m, EpochDone)]

    first, second = run(), run()
    assert first[0][0] == "done"
    assert len(set(first[1])) > 1
    assert first == second


def pool_backward(send):
    """An operation that has no deterministic algorithm."""
    make_deterministic()
    images = torch.rand(2, 3, 9, 9, device="cuda", requires_grad=True)
    nn.functional.adaptive_avg_pool2d(images, 4).sum().backward()


def test_an_operation_without_a_deterministic_algorithm_is_an_error():
    ending = run_in_child(pool_backward, limits=LIMITS)
    assert ending.outcome == "failed"
    assert "does not have a deterministic implementation" in ending.reason
    assert not ending.out_of_memory


def multiply(send):
    make_deterministic()
    matrix = torch.rand(256, 256, device="cuda")
    return float((matrix @ matrix).sum())


def test_matrix_products_have_their_workspace():
    """cuBLAS refuses without its setting of the environment, which must come before its first use."""
    first, second = (run_in_child(multiply, limits=LIMITS) for _ in range(2))
    assert first.outcome == second.outcome == "returned", first.stderr + second.stderr
