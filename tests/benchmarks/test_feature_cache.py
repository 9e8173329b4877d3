"""A training step of VGG-16's fully connected part: on features from the cache against the whole model in
every step. An epoch is steps of that kind, so its time has the same ratio.

    pytest tests/benchmarks/test_feature_cache.py --benchmark-only -s

In a child of the fork server, as cells are; on random weights, which take the time of trained ones, and on
synthetic images. Needs 6 GB of memory.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

from xbench.components import registry
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.planning.datasets import prepare_dataset
from xbench.training.settings import CellSettings, Choice, TrainingSettings

STEPS = 10
OPTIMIZERS = {"sgd": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}, "adam": {"lr": 5e-4}}

pytestmark = pytest.mark.timeout(900)


def in_turn(send, optimizer, data, folder):
    """Seconds of steps with and without features, one after the other, and of an image's features."""
    from xbench.training.assembly import assemble, warm_up
    from xbench.training.checkpoint import Checkpoints
    from xbench.training.features import make_features
    from xbench.training.model import build_trained_part
    from xbench.training.optimizer import load_optimizer
    from xbench.training.splits import split_examples

    os.environ["XBENCH_CACHE_DIR"] = folder
    training, model = TrainingSettings(batch_size=5), Choice("vgg16", {"pretrained": False})
    settings = CellSettings(model, Choice(optimizer, OPTIMIZERS[optimizer]), training, 0, "cpu")
    report = make_features(send, settings, data, np.arange(len(data.rows)))
    specs = registry.load("model", model.name), load_optimizer(settings.optimizer)
    split = split_examples(data, training, 0)
    trainers, kept = [], Checkpoints(Path(folder))
    for features in (report.file, None):
        trained = build_trained_part(specs[0], settings, data, features)
        trainers.append(
            assemble(lambda message: None, settings, data, *specs, trained, split, kept, features)
        )
        warm_up(trainers[-1])
    seconds = []
    for step in range(1, STEPS + 1):
        for trainer in trainers:
            started = time.perf_counter()
            trainer.closure.start(step, split.train[:5])
            trainer.optimizer.step(trainer.closure)
            seconds.append(time.perf_counter() - started)
    return seconds[2::2], seconds[3::2], report.seconds / report.computed


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_on_cached_features_against_a_step_of_the_whole_model(benchmark, tmp_path, optimizer):
    data = run_in_child(prepare_dataset, Choice("synthetic-xray", {"train": 40, "test": 10}), False, ()).get()
    endings = []
    benchmark.pedantic(
        lambda: endings.append(run_in_child(in_turn, optimizer, data, str(tmp_path), limits=Limits())),
        rounds=1,
    )
    assert endings[0].outcome == "returned", endings[0].stderr
    cached_s, whole_s, feature_s = endings[0].value
    ratios = [a / b for a, b in zip(cached_s, whole_s, strict=True)]
    benchmark.extra_info |= {
        "cached_step_s": round(statistics.median(cached_s), 3),
        "whole_step_s": round(statistics.median(whole_s), 3),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
        "features_ms_per_image": round(1000 * feature_s, 1),
    }
    print(f"\n{optimizer}: {benchmark.extra_info}")
