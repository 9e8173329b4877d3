"""Cells that run out of memory late, which no probe foresaw: run again with less, attempt by attempt."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow

# Late activations of the whole batch have 123 MB in the first experiment, and ten times that in the second.
SUITE = """
[suite]
name = "retry"

[[experiment]]
name = "halved"
model = {{ name = "sized_parts:build_wide", copies = 100, late_copies = 2000, late_from = 12 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 100, test = 10 }}
train_size = 80
batch_size = "full"
epochs = 20
memory_limit = "{limit}"
adapt = ["micro_batch", "train_size"]
optimizer = "sgd"

[[experiment]]
name = "hopeless"
model = {{ name = "sized_parts:build_wide", copies = 100, late_copies = 20000, late_from = 12 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 100, test = 10 }}
train_size = 80
batch_size = "full"
epochs = 20
memory_limit = "{limit}"
adapt = ["train_size"]
optimizer = "sgd"
"""


@pytest.fixture(scope="module")
def ran(run_suite, above_base):
    return run_suite(SUITE.format(limit=above_base(100)))


def attempts(ran, experiment):
    return [line for line in ran.lines if line["experiment"] == experiment]


def test_there_is_a_line_an_attempt(ran):
    lines = attempts(ran, "halved")
    assert [(line["attempt"], line["status"]) for line in lines] == [(1, "oom"), (2, "oom"), (3, "done")]
    assert len({line["cell_id"] for line in lines}) == 1
    assert [line["requested"]["micro_batch"] for line in lines] == ["full"] * 3
    assert [line["ran"]["micro_batch"] for line in lines] == [80, 80, 40]
    assert [line["ran"]["train_size"] for line in lines] == [80] * 3
    assert [line["fitted"] for line in lines[:2]] == [{}, {}]
    assert lines[2]["fitted"] == {"micro_batch": "adapted after it ran out of memory"}


def test_freed_blocks_are_given_back_before_anything_gives_way(ran):
    assert [line["memory"]["malloc"] for line in attempts(ran, "halved")] == ["fast", "exact", "exact"]


def test_the_first_attempt_keeps_its_steps(ran):
    first, _, last = attempts(ran, "halved")
    assert 0 < first["steps"] < 12
    assert last["steps"] == 20
    assert first["memory"]["exhausted"] is not None


def test_what_never_fits_ends_after_four(ran):
    lines = attempts(ran, "hopeless")
    assert [line["attempt"] for line in lines] == [1, 2, 3, 4]
    assert {line["status"] for line in lines} == {"oom"}
    assert [line["ran"]["train_size"] for line in lines] == [80, 80, 72, 64]
    assert ran.done.returncode == 1


def test_retries_are_told_while_it_runs(ran):
    assert "; trying again with micro_batch 80 -> 40\n" in ran.done.stderr
    assert ran.done.stderr.count("; trying again with train_size") == 2
    assert ran.done.stderr.count("; trying again with freed memory returned at once\n") == 2
    assert "Traceback" not in ran.done.stderr


def test_the_last_attempt_is_what_is_shown(ran, xbench):
    shown = xbench(ran.folder, "show")
    assert shown.stdout == ran.done.stdout
    assert "sgd, seed 0: attempt 3; earlier attempts failed" in shown.stdout
    assert "sgd: micro_batch full ran as 40: adapted after it ran out of memory" in shown.stdout
    assert "sgd, seed 0: attempt 4; earlier attempts failed" in shown.stdout
    document = json.loads(xbench(ran.folder, "show", "--format", "json").stdout)
    shown_cells = [cell for experiment in document["experiments"] for cell in experiment["cells"]]
    assert [(cell["attempt"], cell["status"]) for cell in shown_cells] == [(3, "done"), (4, "oom")]
