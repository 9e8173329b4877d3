"""L-BFGS on 1,400 examples: as a notebook has it (the whole set in memory as floats, one batch at once)
against micro-batches of 16.

    pytest tests/benchmarks/test_full_batch.py --benchmark-only -s

Needs 12 GB of memory. On the real X-rays where `XBENCH_CHEST_XRAY_ROOT` names them, else on synthetic images.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from xbench.components.models import REPORT_CNN
from xbench.errors import DataNotFound
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.memory.host import host_peak_meter, resident_bytes
from xbench.planning.datasets import prepare_dataset
from xbench.training.assembly import assemble
from xbench.training.checkpoint import Checkpoints
from xbench.training.model import TrainedPart, build_model
from xbench.training.optimizer import load_optimizer
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

SIZE = 1400
CURVE_SIZE, CURVE_STEPS = 40, 6  # float64 convolutions take 15 times as long

pytestmark = pytest.mark.timeout(900)

AT_ONCE = {"micro_batch": "full", "memory_format": "contiguous"}, "float32"
MICRO = {"micro_batch": 16, "memory_format": "channels_last"}, "uint8"


def trainer_of(send, data, way, scratch, **changes):
    own, storage = way
    training = TrainingSettings(
        balance="oversample", class_weights={"NORMAL": 2.0}, batch_size="full", **own, **changes
    )
    params = {"history_size": 4, "max_iter": 4, "line_search_fn": "strong_wolfe"}
    settings = CellSettings(Choice("report-cnn", {}), Choice("lbfgs", params), training, 0, "cpu", storage)
    model = build_model(REPORT_CNN, settings, data)
    split = split_examples(data, training, 0)
    return assemble(
        send,
        settings,
        data,
        REPORT_CNN,
        load_optimizer(settings.optimizer),
        TrainedPart(model, ""),
        split,
        Checkpoints(Path(scratch)),
    )


def first_closure(send, data, way, scratch):
    """Loss, gradient (flat), seconds with loading, and peak bytes above the base, of one closure."""
    trainer = trainer_of(send, data, way, scratch, train_size=SIZE)
    trainer.closure.start(1, trainer.split.train[:1])
    trainer.closure()  # libraries load what they load
    base, meter = resident_bytes(), host_peak_meter()
    started = time.perf_counter()
    trainer.closure.start(1, trainer.split.train)
    loss = trainer.closure()
    elapsed_s = time.perf_counter() - started
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    return float(loss), gradient.numpy(), elapsed_s, meter.peak_bytes() - base


def whole_curve(send, data, way, scratch):
    """The loss of every closure of a training in float64."""
    trainer = trainer_of(send, data, way, scratch, train_size=CURVE_SIZE, dtype="float64")
    losses = []

    def closure():
        losses.append(float(trainer.closure()))
        return losses[-1]

    for step in range(1, CURVE_STEPS + 1):
        trainer.closure.start(step, trainer.split.train)
        trainer.optimizer.step(closure)
    return losses


@pytest.fixture(scope="module")
def images():
    try:
        return run_in_child(prepare_dataset, Choice("chest-xray", {}), False, ()).get()
    except DataNotFound:
        return run_in_child(prepare_dataset, Choice("synthetic-xray", {}), False, ()).get()


def measured(job, *args):
    ending = run_in_child(job, *args, limits=Limits())
    assert ending.outcome == "returned", ending.stderr
    return ending.value


def test_whole_curve(benchmark, images, tmp_path):
    curves = {}

    def both() -> None:
        for name, (settings, _) in (("at once", AT_ONCE), ("micro", MICRO)):
            curves[name] = measured(whole_curve, images, (settings, "uint8"), str(tmp_path))

    benchmark.pedantic(both, rounds=1)
    pairs = list(zip(curves["at once"], curves["micro"], strict=True))
    largest = max(abs(a - b) / abs(a) for a, b in pairs)
    benchmark.extra_info |= {
        "data": images.name,
        "closures": len(pairs),
        "largest_relative_difference": largest,
    }
    print(f"\n{benchmark.extra_info}")
    assert largest < 1e-8


def test_first_closure(benchmark, images, tmp_path):
    results = {}

    def both() -> None:
        for name, way in (("at once", AT_ONCE), ("micro", MICRO)):
            results.setdefault(name, []).append(measured(first_closure, images, way, str(tmp_path)))

    benchmark.pedantic(both, rounds=3)
    (loss, gradient, _, peak), (micro_loss, micro_gradient, _, micro_peak) = (
        results[key][0] for key in ("at once", "micro")
    )
    seconds = [sorted(value[2] for value in results[key])[1] for key in ("at once", "micro")]
    difference = ((gradient - micro_gradient) ** 2).sum() ** 0.5 / (gradient**2).sum() ** 0.5
    benchmark.extra_info |= {
        "data": images.name,
        "loss": [loss, micro_loss],
        "gradient_relative_difference": float(difference),
        "median_s": seconds,
        "time_ratio": seconds[1] / seconds[0],
        "peak_above_base_bytes": [peak, micro_peak],
        "memory_ratio": micro_peak / peak,
    }
    print(f"\n{benchmark.extra_info}")
    assert micro_loss == pytest.approx(loss, rel=1e-5)
    assert difference < 1e-5
