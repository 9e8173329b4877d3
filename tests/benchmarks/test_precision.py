"""Steps and features in bfloat16, under autocast and compiled, against float32 without compiling.

    pytest tests/benchmarks/test_precision.py --benchmark-only -s

Times are medians of steps that are taken in turn in one process; ratios are to float32. Memory is that of
memory passes: peaks above what the process holds before it trains. Run it alone, on an idle machine. Needs
5 GB of memory, and a C++ compiler for the compiled steps. VGG-16 has trained weights where they are in the
cache, else random ones.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbench.capacity.axis import Axis
from xbench.capacity.workload import TrainingWorkload
from xbench.components import registry
from xbench.components.settings import settings_of
from xbench.errors import WeightsNotFound
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.planning.datasets import prepare_dataset
from xbench.training.job import CellJob
from xbench.training.settings import CellSettings, Choice, TrainingSettings

ROUNDS = 30
IMAGES, CHUNK = 200, 8

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "autocast": {"autocast": "bfloat16"},
    "bfloat16": {"dtype": "bfloat16"},
}
COMPILED: dict[str, dict[str, Any]] = {
    "compiled": {"compile": True},
    "compiled autocast": {"compile": True, "autocast": "bfloat16"},
}
HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None

pytestmark = pytest.mark.timeout(3600)


def cell_settings(way: dict[str, Any], batch: int) -> CellSettings:
    training = TrainingSettings(batch_size=batch, train_size=batch, validation=0.0, selection="last", **way)
    return CellSettings(Choice("report-cnn", {}), Choice("adam", {"lr": 1e-3}), training, 0, "cpu")


def steps_in_turn(send, ways, batch, data, folder, rounds):
    """Seconds of steps, by way; and of compiling."""
    from xbench.training.assembly import warm_up

    os.environ["XBENCH_CACHE_DIR"] = folder
    trainers = {}
    for name, way in ways.items():
        workload = TrainingWorkload(CellJob(cell_settings(way, batch), data), Axis.BATCH_SIZE)
        trainers[name] = workload.trainer(batch, Path(folder))
        warm_up(trainers[name], is_trial=True)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for step in range(1, rounds + 3):
        for name, trainer in trainers.items():
            started = time.perf_counter()
            trainer.closure.start(step, trainer.split.train[:batch])
            trainer.update()
            seconds[name].append(time.perf_counter() - started)
    compile_s = {name: t.compilation.seconds for name, t in trainers.items() if t.compilation}
    return {name: found[2:] for name, found in seconds.items()}, compile_s


def pass_of(send, way, batch, data, folder):
    """The memory pass of a way."""
    os.environ["XBENCH_CACHE_DIR"] = folder
    return TrainingWorkload(CellJob(cell_settings(way, batch), data), Axis.BATCH_SIZE).take_pass(batch)


def find_weights(send) -> bool:
    """Whether VGG-16's trained weights are on this machine."""
    spec = registry.load("model", "vgg16")
    try:
        spec.load_obtain()({**settings_of(spec).defaults, "pretrained": True}, False, lambda *done: None)
    except WeightsNotFound:
        return False
    return True


def features_in_turn(send, ways, data, images, pretrained):
    """Seconds of a chunk of features, by way, and the peak bytes above what was held before, of the last."""
    import torch

    from xbench.memory.host import host_peak_meter
    from xbench.training.frozen import Backbone
    from xbench.training.loader import ImageLoader
    from xbench.training.model import build_model
    from xbench.training.precision import autocast

    spec, cpu, parts = registry.load("model", "vgg16"), torch.device("cpu"), {}
    for name, way in ways.items():
        model = Choice("vgg16", {"pretrained": pretrained})
        settings = CellSettings(model, Choice("adam", {}), TrainingSettings(**way), 0, "cpu")
        dtype = getattr(torch, settings.training.dtype)
        loader = ImageLoader(data, spec, cpu, dtype, "channels_last")
        parts[name] = Backbone(build_model(spec, settings, data)), loader, settings.training.autocast
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    meter, peak_bytes = host_peak_meter(), {}
    for start in range(0, images, CHUNK):
        indices = np.arange(start, start + CHUNK) % len(data.rows)
        for name, (backbone, loader, setting) in parts.items():
            meter.reset()
            held, started = meter.now_bytes(), time.perf_counter()
            with autocast(cpu, setting):
                backbone(loader.load_examples(indices))
            seconds[name].append(time.perf_counter() - started)
            peak_bytes[name] = meter.peak_bytes() - held
    return {name: found[1:] for name, found in seconds.items()}, peak_bytes


def summarise(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in milliseconds, and medians and quartiles of ratios to float32, pair by pair."""
    figures: dict[str, Any] = {}
    for name, found in seconds.items():
        ratios = [a / b for a, b in zip(found, seconds["float32"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        figures[name] = {
            "ms": round(1000 * statistics.median(found), 1),
            "ratio": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
        }
    return figures


def get(ending):
    assert ending.outcome == "returned", ending.stderr
    return ending.value


@pytest.fixture(scope="module")
def images():
    return run_in_child(prepare_dataset, Choice("synthetic-xray", {"train": 48, "test": 8}), False, ()).get()


@pytest.mark.parametrize("batch", [5, 32])
def test_steps_of_report_cnn(benchmark, images, tmp_path, batch):
    ways = WAYS | (COMPILED if HAS_COMPILER else {})
    found = []
    benchmark.pedantic(
        lambda: found.append(
            get(run_in_child(steps_in_turn, ways, batch, images, str(tmp_path), ROUNDS, limits=Limits()))
        ),
        rounds=1,
    )
    seconds, compile_s = found[0]
    figures = summarise(seconds)
    for name, way in ways.items():
        limits = Limits(malloc="exact")
        measured = get(run_in_child(pass_of, way, batch, images, str(tmp_path), limits=limits))
        figures[name] |= {
            "above_process_mb": round((measured.peak_bytes - measured.process_bytes) / 1e6, 1),
            "process_mb": round(measured.process_bytes / 1e6),
        }
        if name in compile_s:
            figures[name]["compile_s"] = round(compile_s[name], 1)
    benchmark.extra_info |= figures
    print(f"\nreport-cnn, batch {batch}:")
    for name, figure in figures.items():
        print(f"  {name}: {figure}")


def test_features_of_vgg16(benchmark, images):
    pretrained = get(run_in_child(find_weights))
    found = []
    limits = Limits(malloc="exact")
    benchmark.pedantic(
        lambda: found.append(
            get(run_in_child(features_in_turn, WAYS, images, IMAGES, pretrained, limits=limits))
        ),
        rounds=1,
    )
    seconds, peak_bytes = found[0]
    figures = summarise(seconds)
    for name, peak in peak_bytes.items():
        figures[name] |= {"images": IMAGES, "peak_above_model_mb": round(peak / 1e6, 1)}
    benchmark.extra_info |= figures | {"weights": "trained" if pretrained else "random"}
    print(f"\nfeatures of vgg16 ({benchmark.extra_info['weights']} weights), per chunk of {CHUNK} images:")
    for name, figure in figures.items():
        print(f"  {name}: {figure}")
