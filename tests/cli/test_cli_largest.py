"""`train_size = "largest"`: the most examples that every optimizer can run, to a few percent."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

# An example has 1.536 MB of activations; a vector of the parameters has 20 MB, of which Adam keeps two more.
SUITE = """
[suite]
name = "largest"
seeds = {seeds}

[[experiment]]
name = "{name}"
model = {{ name = "sized_parts:build_wide", copies = 2000, ballast = 5_000_000 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 800, test = 10 }}
train_size = {train_size}
batch_size = "full"
memory_limit = "{limit}"
optimizer = {optimizers}
"""
LIMIT_MB = 800


@pytest.fixture(scope="module")
def suite(above_base):
    def text(name, optimizers, train_size='"largest"', seeds=1):
        limit = above_base(LIMIT_MB)
        return SUITE.format(name=name, optimizers=optimizers, train_size=train_size, seeds=seeds, limit=limit)

    return text


@pytest.fixture(scope="module")
def both(run_suite, suite):
    return run_suite(suite("both", '["sgd", "adam"]'))


@pytest.fixture(scope="module")
def largest(both):
    (size,) = {cell["ran"]["train_size"] for cell in both.cells("both")}
    return size


def test_all_ran_with_the_same_size(both, largest):
    assert both.done.returncode == 0, both.done.stderr
    assert [(cell["column"], cell["seed"], cell["status"]) for cell in both.cells("both")] == [
        ("sgd", 0, "done"),
        ("adam", 0, "done"),
    ]
    for cell in both.cells("both"):
        assert cell["requested"]["train_size"] == "largest"
        assert cell["ran"]["batch_size"] == cell["ran"]["micro_batch"] == largest
        assert cell["memory"]["peak_host_bytes"] <= cell["memory"]["limit_bytes"]
    assert f"adam: train_size largest ran as {largest}: the largest that every optimizer" in both.done.stdout


def test_it_is_the_smaller_of_two_capacities_which_are_remembered(run_suite, suite, both, largest):
    assert both.fitting == ["fitting train_size of both / sgd", "fitting train_size of both / adam"]
    ran = run_suite(suite("alone", '["sgd"]'))
    (cell,) = ran.cells("alone")
    assert cell["status"] == "done"
    assert ran.fitting == []
    assert cell["ran"]["train_size"] > largest


def test_more_does_not_fit(run_suite, suite, largest):
    """A tenth more: a percent is the search's, one of the whole limit is kept in reserve, and processes
    differ."""
    ran = run_suite(suite("more", '["adam"]', train_size=int(largest * 1.1) + 1))
    (cell,) = ran.cells("more")
    assert (ran.done.returncode, cell["status"]) == (1, "oom")


def test_no_seed_asks_for_more_than_it_has(run_suite):
    """Seeds hold out other patients, and so have other numbers of images left."""
    ran = run_suite("""
        [suite]
        name = "grouped"
        seeds = 6

        [[experiment]]
        name = "grouped"
        model = { name = "sized_parts:build_wide", copies = 1 }
        dataset = "sized_parts:build_grouped"
        validation = 0.3
        train_size = ["largest", "all"]
        optimizer = "sgd"
    """)
    assert ran.done.returncode == 0, ran.done.stderr
    there = {cell["ran"]["train_size"] for cell in ran.cells("grouped", "sgd train_size=all")}
    assert len(there) > 1, "the test needs seeds that differ"
    assert {cell["ran"]["train_size"] for cell in ran.cells("grouped", "sgd train_size=largest")} == {
        min(there)
    }
