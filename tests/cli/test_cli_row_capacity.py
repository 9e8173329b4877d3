"""Sizes of cells on rows are fitted to memory as those of images are."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SUITE = """
suite.name = "capacity"
[[experiment]]
name = "fits"
model = {{ name = "mlp", hidden = [512, 512, 512] }}
dataset = {{ name = "task_parts:build_rows", train = 12000 }}
optimizer = "sgd"
batch_size = "full"
memory_limit = "{limit}"
adapt = ["micro_batch"]

[[experiment]]
name = "indivisible"
model = {{ name = "mlp", hidden = [512, 512, 512] }}
dataset = {{ name = "task_parts:build_rows", train = 12000, task = "honest" }}
optimizer = "sgd"
batch_size = "full"
memory_limit = "{limit}"
adapt = ["micro_batch"]
"""


@pytest.fixture(scope="module")
def adapted(run_suite, above_base):
    return run_suite(SUITE.format(limit=above_base(60)))


def test_micro_batches_are_made_as_small_as_the_limit_asks(adapted):
    (record,) = adapted.cells("fits")
    assert record["status"] == "done"
    assert record["ran"]["batch_size"] == 10800
    assert record["ran"]["micro_batch"] < 10800
    assert "adapted to fit" in record["fitted"]["micro_batch"]


def test_a_task_that_is_not_additive_keeps_whole_batches(adapted):
    (record,) = adapted.cells("indivisible")
    assert record["status"] == "oom"
    assert record["fitted"] == {}
    assert any("depends on the other examples" in line for line in adapted.done.stderr.splitlines())


def test_a_capacity_is_probed(xbench, tmp_path):
    done = xbench(tmp_path, "probe-capacity", "--optimizer", "adam", "--model", "mlp", "--dataset", "digits")
    assert done.returncode == 0, done.stderr
    assert "adam, mlp on digits" in done.stdout
    assert "memory does not limit batch-size up to 1,295" in done.stdout
