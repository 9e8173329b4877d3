"""The whole set in memory as floats trains as images that are read as they are needed."""

from __future__ import annotations

import pyarrow.parquet
import pytest

pytestmark = pytest.mark.slow

SUITE = """
[suite]
name = "storage"

[[experiment]]
name = "uint8"
model = { name = "sized_parts:build_mlp", side = 16, hidden = 32 }
dataset = { name = "synthetic-xray", train = 60, test = 30, image_size = 16 }
train_size = 48
batch_size = 16
epochs = 3
optimizer = [
  { name = "adam", lr = 1e-2 },
  { name = "lbfgs", line_search_fn = "strong_wolfe", batch_size = "full", micro_batch = 16 },
]

[[experiment]]
name = "float32"
model = { name = "sized_parts:build_mlp", side = 16, hidden = 32 }
dataset = { name = "synthetic-xray", train = 60, test = 30, image_size = 16, storage = "float32" }
train_size = 48
batch_size = 16
epochs = 3
optimizer = [
  { name = "adam", lr = 1e-2 },
  { name = "lbfgs", line_search_fn = "strong_wolfe", batch_size = "full", micro_batch = 16 },
]
"""
EXAMPLE_BYTES = 3 * 16 * 16 * 4 + 8  # with its label


@pytest.fixture(scope="module")
def ran(run_suite):
    return run_suite(SUITE)


@pytest.fixture(scope="module")
def pairs(ran):
    assert ran.done.returncode == 0, ran.done.stderr
    pairs = list(zip(ran.cells("uint8"), ran.cells("float32"), strict=True))
    assert len(pairs) == 2
    return pairs


def test_metrics_and_epochs_are_the_same(pairs):
    for read, kept in pairs:
        assert kept["metrics"] == read["metrics"]
        assert kept["epochs"] == read["epochs"]
        assert kept["closures"] == read["closures"]


def test_every_loss_is_the_same(ran, pairs):
    (folder,) = ran.folder.glob("results/storage/[!.]*")
    for cells in pairs:
        losses = [
            pyarrow.parquet.read_table(folder / "traces" / f"{cell['cell_id']}.parquet")["loss"].to_pylist()
            for cell in cells
        ]
        assert losses[0] == losses[1]
        assert len(losses[0]) == cells[0]["steps"] > 0


def test_data_counts_what_is_held(pairs):
    """The whole set, test images included, beside the batch. A micro-batch is gone when the update begins,
    which may be where the peak is."""
    for (read, kept), examples in zip(pairs, ({16}, {0, 16}), strict=True):
        assert read["memory_pass"]["data_bytes"] in {count * EXAMPLE_BYTES for count in examples}
        assert kept["memory_pass"]["data_bytes"] in {(90 + count) * EXAMPLE_BYTES for count in examples}
