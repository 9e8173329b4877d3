"""A training step of VGG-16's fully connected part: on features from the cache against the whole model in
every step. An epoch is steps of that kind, so its time has the same ratio.

    pytest tests/benchmarks/test_feature_cache.py --benchmark-only -s

On random weights, which take the time of trained ones, and on synthetic images.
"""

from __future__ import annotations

import numpy as np
import pytest
from pairs import paired

from xbench.components.optimizers import SGD
from xbench.components.synthetic_xray import build_synthetic_xray
from xbench.components.torchvision_models import VGG16
from xbench.data.decode import decode
from xbench.training.cell import assemble
from xbench.training.features import make_features
from xbench.training.model import model_to_train
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

ROUNDS = 8

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        dataset = build_synthetic_xray(train=40, test=10)
        yield decode(dataset, "synthetic-xray", "synthetic", False, lambda done, total: None)


def test_a_step_on_cached_features_against_a_step_of_the_whole_model(benchmark, data, tmp_path):
    training = TrainingSettings(batch_size=5, validation=0.1)
    params = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    model = Choice("vgg16", {"pretrained": False})
    settings = CellSettings(model, Choice("sgd", params), training, 0, "cpu")
    report = make_features(lambda message: None, settings, data, np.arange(len(data.rows)))
    split = split_examples(data, training, 0)

    def step(features):
        trained = model_to_train(VGG16, settings, data, features)
        trainer = assemble(
            lambda message: None, settings, data, VGG16, SGD, trained, split, tmp_path, features
        )

        def run():
            trainer.closure.start(1, split.train[:5])
            trainer.optimizer.step(trainer.closure)

        return run

    paired(benchmark, step(report.file), step(None), ROUNDS)
    per_image_ms = round(1000 * report.seconds / report.computed, 1)
    benchmark.extra_info |= {"features_ms_per_image": per_image_ms}
    print(f"computing features: {per_image_ms} ms an image, once")
