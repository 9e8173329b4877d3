"""Training on images that lie on disk alone, with and without telling the system of them early.

    pytest tests/benchmarks/test_read_ahead.py --benchmark-only -s

The page cache is emptied of the file before each epoch (which needs no privilege where nobody else holds it).
"""

from __future__ import annotations

import os

import pytest

from tests.benchmarks.pairs import paired
from xbench.components.models import REPORT_CNN
from xbench.components.synthetic_xray import build_synthetic_xray
from xbench.data.decode import decode
from xbench.training.assembly import assemble
from xbench.training.checkpoint import Checkpoints
from xbench.training.model import TrainedPart, build_model
from xbench.training.optimizer import load_optimizer
from xbench.training.progress import Progress
from xbench.training.settings import CellSettings, Choice, TrainingSettings
from xbench.training.splits import split_examples

IMAGES, ROUNDS = 2000, 5

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        dataset = build_synthetic_xray(train=IMAGES, test=10)
        yield decode(dataset, "synthetic-xray", "synthetic", False, lambda done, total: None)


@pytest.fixture
def epoch(data, tmp_path):
    """A whole epoch of the report's CNN, batches of 5."""
    training = TrainingSettings(batch_size=5, validation=0.1)
    settings = CellSettings(Choice("report-cnn", {}), Choice("sgd", {"lr": 1e-3}), training, 0, "cpu")
    split = split_examples(data, training, 0)
    model = build_model(REPORT_CNN, settings, data)
    kept = Checkpoints(tmp_path)
    trainer = assemble(
        lambda message: None,
        settings,
        data,
        REPORT_CNN,
        load_optimizer(settings.optimizer),
        TrainedPart(model, ""),
        split,
        kept,
    )

    def run(is_cold: bool, is_announced: bool):
        if is_cold:
            descriptor = os.open(data.pixels_path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        with pytest.MonkeyPatch.context() as patch:
            if not is_announced:
                patch.setattr(trainer.loader, "prefetch", lambda indices: None)
            trainer.progress = Progress()  # otherwise it resumes where the last epoch ended
            trainer.train_epoch(1)

    return run


def test_an_epoch_from_disk_with_reading_ahead_against_one_from_memory(benchmark, epoch):
    paired(benchmark, lambda: epoch(True, True), lambda: epoch(False, True), ROUNDS)


def test_an_epoch_from_disk_without_reading_ahead_against_one_from_memory(benchmark, epoch):
    paired(benchmark, lambda: epoch(True, False), lambda: epoch(False, False), ROUNDS)
