"""What xbench's loop costs for rows: an epoch of steps against a bare PyTorch loop, side by side.

    pytest tests/benchmarks/test_row_step_cost.py --benchmark-only -s

Run it alone: a second busy process slows small batches by more than what is measured here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.benchmarks.pairs import paired
from xbench.components.registry import load
from xbench.planning.datasets import prepare_dataset
from xbench.training.assembly import assemble
from xbench.training.checkpoint import Checkpoints
from xbench.training.loop import Trainer
from xbench.training.model import TrainedPart, build_model
from xbench.training.optimizer import load_optimizer
from xbench.training.progress import Progress
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import epoch_order, split_examples

# Steps of an epoch, and the time that a step may take beyond the bare loop's.
STEPS, MAX_EXTRA_S = 50, 60e-6

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))


def trainer_for(model: Choice, dataset: Choice, batch_size: int, tmp_path) -> Trainer:
    data = prepare_dataset(lambda progress: None, dataset, False, ())
    training = TrainingSettings(
        batch_size=batch_size, validation=0, selection="last", train_size=batch_size * STEPS
    )
    settings = CellSettings(model, Choice("adamw", {"lr": 1e-3}), training, 0, "cpu")
    spec = load("model", model.name)
    network = build_model(spec, settings, data)
    split = split_examples(data, training, 0)
    return assemble(
        lambda message: None,
        settings,
        data,
        spec,
        load_optimizer(settings.optimizer),
        TrainedPart(network, ""),
        split,
        Checkpoints(tmp_path),
    )


def compare(
    benchmark, trainer: Trainer, loss_of: Callable[..., torch.Tensor], rounds: int
) -> tuple[float, float]:
    """Return the ratio of the times, and the seconds that a step takes beyond a bare one.

    The bare loop has all rows in memory, in the training's dtype.
    """
    twin = copy.deepcopy(trainer.model)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3)
    inputs, targets = trainer.loader.load(np.arange(trainer.split.train.max() + 1))

    def bare_epoch() -> None:
        order = torch.from_numpy(epoch_order(trainer.split.train, 0, 1))
        for batch in order.split(trainer.batch_size):
            optimizer.zero_grad()
            loss_of(twin(inputs[batch]), targets[batch]).backward()
            optimizer.step()

    def epoch() -> None:
        trainer.progress = Progress()  # otherwise it resumes where the last epoch ended
        trainer.train_epoch(1)

    ratio = paired(benchmark, epoch, bare_epoch, rounds)
    step_s = benchmark.stats.stats.median / STEPS
    extra_s = step_s * (1 - 1 / ratio)
    print(f"{step_s * 1e6:.0f} us a step, of which {extra_s * 1e6:.0f} us beyond the bare loop")
    return ratio, extra_s


def test_language_model(benchmark, tmp_path):
    """The aim: below 1.05."""
    dataset = Choice("generated-text", {"size": 200_000, "context": 64})
    trainer = trainer_for(Choice("gpt-mini", {}), dataset, 16, tmp_path)

    def loss_of(logits: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), following.flatten())

    ratio, _ = compare(benchmark, trainer, loss_of, rounds=10)
    assert ratio < 1.05


@pytest.mark.parametrize("hidden", [(64, 64), (512, 512)])
def test_tabular(benchmark, tmp_path, hidden):
    """The aim: below 1.05, or at most 60 microseconds a step beyond the bare loop."""
    trainer = trainer_for(Choice("mlp", {"hidden": hidden}), Choice("digits", {}), 20, tmp_path)
    ratio, extra_s = compare(benchmark, trainer, functional.cross_entropy, rounds=40)
    assert ratio < 1.05 or extra_s < MAX_EXTRA_S
