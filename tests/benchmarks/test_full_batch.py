"""L-BFGS's closure on 1,400 examples: the whole batch in memory at once against micro-batches of 16.

    pytest tests/benchmarks/test_full_batch.py --benchmark-only -s

Needs 8 GB of memory. On the real X-rays where `XBENCH_CHEST_XRAY_ROOT` names them, else on synthetic images.
"""

from __future__ import annotations

import time

import pytest
import torch

from xbench.components.models import REPORT_CNN
from xbench.components.optimizers import LBFGS
from xbench.errors import DataNotFound
from xbench.execution.inspection import decode_dataset
from xbench.isolation.child import Limits
from xbench.isolation.run import call_in_child, run_in_child
from xbench.memory.host import host_peak_meter, resident_bytes
from xbench.training.cell import assemble, build_model
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

SIZE = 1400

pytestmark = pytest.mark.timeout(900)


def first_closure(send, data, micro_batch, scratch):
    """Loss, gradient (flat), seconds with loading, and peak bytes above the base, of one closure."""
    from pathlib import Path

    training = TrainingSettings(
        train_size=SIZE,
        balance="oversample",
        class_weights={"NORMAL": 2.0},
        batch_size="full",
        micro_batch=micro_batch,
    )
    settings = CellSettings(Choice("report-cnn", {}), Choice("lbfgs", {}), training, 0, "cpu")
    model = build_model(REPORT_CNN, settings, data)
    split = split_examples(data, training, 0)
    trainer = assemble(send, settings, data, REPORT_CNN, LBFGS, model, split, Path(scratch))
    trainer.closure.start(1, trainer.split.train[:1])
    trainer.closure()  # libraries load what they load
    base, meter = resident_bytes(), host_peak_meter()
    started = time.perf_counter()
    trainer.closure.start(1, trainer.split.train)
    loss = trainer.closure()
    elapsed_s = time.perf_counter() - started
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return float(loss), gradient.numpy(), elapsed_s, meter.peak_bytes() - base


@pytest.fixture(scope="module")
def images():
    try:
        return call_in_child(decode_dataset, Choice("chest-xray", {}), False, ())
    except DataNotFound:
        return call_in_child(decode_dataset, Choice("synthetic-xray", {}), False, ())


def test_first_closure(benchmark, images, tmp_path):
    results = {}

    def both() -> None:
        for micro_batch in ("full", 16):
            ending = run_in_child(first_closure, images, micro_batch, str(tmp_path), limits=Limits())
            assert ending.outcome == "returned", ending.stderr
            results.setdefault(micro_batch, []).append(ending.value)

    benchmark.pedantic(both, rounds=3)
    (loss, gradient, _, peak), (micro_loss, micro_gradient, _, micro_peak) = (
        results[key][0] for key in ("full", 16)
    )
    seconds = [sorted(value[2] for value in results[key])[1] for key in ("full", 16)]
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
