"""What xbench's own loop costs: the profiler against none, a step against a bare PyTorch loop.

    pytest tests/benchmarks/test_step_cost.py --benchmark-only -s

Run it alone: a second busy process slows small batches by more than what is measured here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.benchmarks.pairs import paired
from xbench import Dataset, Example
from xbench.components.models import REPORT_CNN
from xbench.data.decode import decode
from xbench.memory.profiler import StepProfile, StepProfiler
from xbench.training.assembly import assemble
from xbench.training.checkpoint import Checkpoints
from xbench.training.loop import Trainer
from xbench.training.model import TrainedPart, build_model
from xbench.training.optimizer import load_optimizer
from xbench.training.progress import Progress
from xbench.training.recorder import TraceRecorder
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import epoch_order, split_examples

BATCH, STEPS = 5, 60

pytestmark = pytest.mark.timeout(900)


class Unprofiled(StepProfiler):
    """Measures nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0

    def begin(self) -> None:
        pass

    def end(self) -> None:
        self._steps += 1

    def collect(self) -> list[StepProfile]:
        steps, self._steps = self._steps, 0
        return [StepProfile(0.0, 0)] * steps


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Images of noise in the size of the report's: time does not depend on what they show."""

    def read(example: Example) -> np.ndarray:
        return np.random.default_rng(int(example.name)).integers(0, 256, (224, 224, 3), dtype=np.uint8)

    examples = tuple(
        Example(name=str(i), label=i % 2, split="test" if i < BATCH else "train", content=f"noise {i}")
        for i in range(BATCH + BATCH * STEPS)
    )
    data = Dataset(classes=("a", "b"), positive="b", shape=(3, 224, 224), examples=examples, read=read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return decode(data, "noise", "noise", False, lambda done, total: None)


def trainer_for(data, tmp_path, profiler: StepProfiler | None = None) -> Trainer:
    settings = CellSettings(
        Choice("report-cnn", {}),
        Choice("sgd", {"lr": 1e-3, "momentum": 0.9}),
        TrainingSettings(batch_size=BATCH, validation=0, selection="last", class_weights={"a": 2.0}),
        0,
        "cpu",
    )
    model = build_model(REPORT_CNN, settings, data)
    split = split_examples(data, settings.training, settings.seed)
    trainer = assemble(
        lambda message: None,
        settings,
        data,
        REPORT_CNN,
        load_optimizer(settings.optimizer),
        TrainedPart(model, ""),
        split,
        Checkpoints(tmp_path),
    )
    if profiler is not None:
        trainer.profiler = profiler
        trainer.recorder = TraceRecorder(profiler, lambda message: None)
    return trainer


def test_profiler(benchmark, noise, tmp_path):
    """The aim: below 1.01."""
    profiled = trainer_for(noise, tmp_path)
    unprofiled = trainer_for(noise, tmp_path, Unprofiled())
    batch = profiled.split.train[:BATCH]
    ratio = paired(
        benchmark,
        lambda: profiled.train_step(1, 1, batch),
        lambda: unprofiled.train_step(1, 1, batch),
        rounds=1000,
    )
    assert ratio < 1.01


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_step(benchmark, noise, tmp_path, layout):
    """The aim: below 1.05, against the plain loop that keeps normalised images in memory, contiguous.

    The same loop with channels-last images is as fast as PyTorch can be here; that ratio is for the reader.
    """
    trainer = trainer_for(noise, tmp_path)
    bare = trainer_for(noise, tmp_path)
    model, optimizer, weight = bare.model, bare.optimizer, torch.tensor([2.0, 1.0])
    format_ = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    images, labels = bare.loader.load(np.arange(len(noise.rows)))
    images = images.contiguous(memory_format=format_)

    def bare_epoch() -> None:
        order = torch.from_numpy(epoch_order(bare.split.train, 0, 1))
        for batch in order.split(BATCH):
            x = images[batch].contiguous(memory_format=format_)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), labels[batch], weight=weight).backward()
            optimizer.step()

    def epoch() -> None:
        trainer.progress = Progress()  # otherwise it resumes where the last epoch ended
        trainer.train_epoch(1)

    ratio = paired(benchmark, epoch, bare_epoch, rounds=20)
    assert layout == "channels_last" or ratio < 1.05
