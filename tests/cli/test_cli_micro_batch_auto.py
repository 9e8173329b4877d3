"""`micro_batch = "auto"`: measured once on a machine, and then a number."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SUITE = """
[suite]
name = "auto"
seeds = 2

[[experiment]]
name = "auto"
model = {{ name = "sized_parts:build_wide", copies = 100 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 100, test = 10 }}
train_size = 64
memory_limit = "{limit}"
batch_size = "full"
micro_batch = ["auto", 1]
epochs = 2
optimizer = "sgd"
"""
SIZES = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def first(run_suite, above_base):
    return run_suite(SUITE.format(limit=above_base(500)))


@pytest.fixture(scope="module")
def second(first, run_suite, above_base):
    return run_suite(SUITE.format(limit=above_base(500)))


def sizes(ran) -> set[int]:
    cells = ran.cells("auto", "sgd micro_batch=auto")
    assert len(cells) == 2
    for cell in cells:
        assert cell["status"] == "done"
        assert cell["requested"]["micro_batch"] == "auto"
        assert cell["settings"]["micro_batch"] == cell["ran"]["micro_batch"]
        assert cell["fitted"] == {"micro_batch": "the fastest that fits"}
    return {cell["ran"]["micro_batch"] for cell in cells}


def test_the_record_has_a_number(first):
    assert first.done.returncode == 0, first.done.stderr
    (size,) = sizes(first)
    assert size in SIZES
    assert f"sgd micro_batch=auto: micro_batch auto ran as {size}: the fastest that fits" in first.done.stdout


def test_it_is_measured_once_for_all_seeds(first):
    cell = "auto / sgd micro_batch=auto"
    assert first.fitting == [f"fitting the speed of micro_batch of {cell}", f"fitting micro_batch of {cell}"]


def test_it_is_remembered(first, second):
    assert second.fitting == []
    assert sizes(second) == sizes(first)


def test_times_compare_with_those_of_what_was_not_fitted(first):
    """It did not fill the limit, so malloc is as fast as it was when sizes were timed."""
    assert {cell["memory"]["malloc"] for cell in first.cells("auto")} == {"fast"}
    assert "compare times with care" not in first.done.stdout


def test_what_was_asked_for_in_numbers_stays_so(first):
    for cell in first.cells("auto", "sgd micro_batch=1"):
        assert (cell["requested"]["micro_batch"], cell["ran"]["micro_batch"], cell["fitted"]) == (1, 1, {})


def test_a_model_that_mixes_examples_gets_the_whole_batch(run_suite, above_base):
    text = SUITE.format(limit=above_base(500)).replace("build_wide", "build_normed")
    ran = run_suite(text.replace('["auto", 1]', '"auto"'))
    assert ran.done.returncode == 0, ran.done.stderr
    why = "its model mixes the examples of a batch"
    assert [(cell["ran"]["micro_batch"], cell["fitted"]) for cell in ran.cells("auto")] == [
        (64, {"micro_batch": why})
    ] * 2
    assert f"sgd: micro_batch auto ran as 64: {why}" in ran.done.stdout
