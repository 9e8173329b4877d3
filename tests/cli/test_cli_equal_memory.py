"""Optimizers with the same memory, from the suite to the tables and figures."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow

# A row has about 20 kB of activations; a vector of the parameters has 2.2 MB, of which Adam keeps two.
SUITE = """
[suite]
name = "equal"
seeds = 2

[[experiment]]
name = "batches"
model = {{ name = "mlp", hidden = [512, 512, 512] }}
dataset = {{ name = "task_parts:build_rows", train = 8000 }}
equal = "memory"
along = "batch_size"
memory_limit = "{limit}"
optimizer = ["sgd", "adam"]
"""
SCALED = """
suite.name = "scaled"
[[experiment]]
name = "widths"
model = {{ name = "gpt-mini", depth = 1, heads = 2 }}
dataset = {{ name = "generated-text", size = 20000, context = 16 }}
validation = 0.1
train_size = 64
equal = "memory"
along = "width"
memory_limit = "{limit}"
optimizer = ["sgd", {{ name = "adamw", along = "context" }}]
"""


@pytest.fixture(scope="module")
def batches(run_suite, above_base):
    return run_suite(SUITE.format(limit=above_base(40)))


@pytest.fixture(scope="module")
def sizes(batches):
    return {
        column: {cell["ran"]["batch_size"] for cell in batches.cells("batches", column)}
        for column in ("sgd", "adam")
    }


def test_every_cell_runs_within_the_limit_and_nearly_fills_it(batches):
    assert batches.done.returncode == 0, batches.done.stderr
    assert [cell["status"] for cell in batches.cells("batches")] == ["done"] * 4
    for cell in batches.cells("batches"):
        limit_bytes = cell["memory"]["limit_bytes"]
        assert cell["memory"]["peak_host_bytes"] <= limit_bytes
        assert 0.95 * limit_bytes <= cell["memory_pass"]["peak_bytes"] <= limit_bytes


def test_an_optimizer_with_more_state_has_a_smaller_batch(sizes):
    (sgd,), (adam,) = sizes["sgd"], sizes["adam"]
    assert 1 < adam < sgd < 7200


def test_records_and_tables_say_what_was_found(batches, sizes):
    for cell in batches.cells("batches"):
        (size,) = sizes[cell["column"]]
        assert cell["requested"]["batch_size"] == "largest"
        assert cell["ran"]["micro_batch"] == size
        assert cell["fitted"]["batch_size"].startswith("the largest that fits")
    (run,) = batches.folder.glob("results/*/*/run.json")
    (experiment,) = json.loads(run.read_text())["experiments"]
    assert experiment["equal"]["what"] == "memory"
    assert experiment["equal"]["along"] == {"sgd": "batch_size", "adam": "batch_size"}
    assert "the largest batch size that fits" in batches.done.stdout


def test_a_size_is_found_once_for_all_seeds_and_runs(batches, sizes, run_suite, above_base):
    assert batches.fitting == [f"fitting batch_size of batches / {column}" for column in ("sgd", "adam")]
    again = run_suite(SUITE.format(limit=above_base(40)).replace("seeds = 2", "seeds = [0]"))
    assert again.fitting == []
    assert {cell["column"]: {cell["ran"]["batch_size"]} for cell in again.cells("batches")} == sizes


def test_the_page_has_a_figure_with_the_limit(batches, xbench):
    done = xbench(batches.folder, "report")
    assert done.returncode == 0, done.stderr
    (picture,) = batches.folder.glob("results/*/*/report/**/*metric-memory.svg")
    assert "limit: " in picture.read_text()


def test_a_dry_run_names_the_setting(batches, xbench, allow_user_code):
    done = xbench(batches.folder, "run", "suite.toml", "--dry-run", "--format", "json", *allow_user_code)
    cells = json.loads(done.stdout)["cells"]
    assert [(cell["along"], cell["batch_size"]) for cell in cells] == [("batch_size", "largest")] * 4
    assert all(cell["estimated_s"] > 0 for cell in cells)


def test_settings_of_the_model_and_of_the_data(run_suite, above_base):
    ran = run_suite(SCALED.format(limit=above_base(30)))
    assert ran.done.returncode == 0, ran.done.stdout + ran.done.stderr
    (sgd,), (adamw,) = ran.cells("widths", "sgd"), ran.cells("widths", "adamw")
    assert sgd["ran"]["width"] == sgd["model"]["params"]["width"] > 64
    assert sgd["ran"]["width"] % 2 == 0
    assert adamw["ran"]["context"] == adamw["dataset"]["params"]["context"]
    assert adamw["ran"]["context"] not in (1, 16)
    assert adamw["dataset"]["params"]["size"] == 20000
    for cell in (sgd, adamw):
        assert cell["memory_pass"]["peak_bytes"] <= cell["memory"]["limit_bytes"]


def test_a_limit_below_the_smallest_size_is_told(run_suite, above_base):
    huge = SUITE.format(limit=above_base(30)).replace("[512, 512, 512]", "[4000, 4000]")
    ran = run_suite(huge.replace("seeds = 2", "seeds = 1"))
    assert ran.done.returncode == 1
    for cell in ran.cells("batches"):
        assert cell["status"] == "oom"
        assert cell["reason"].startswith("not even the smallest batch_size fits")


def test_mistakes_are_told_together_before_anything_runs(run_suite):
    text = SUITE.format(limit="1GB").replace('along = "batch_size"', 'along = "histroy"')
    ran = run_suite(text.replace('"adam"]', '{ name = "adam", along = "history_size" }]'))
    assert ran.done.returncode == 2
    lines = [line for line in ran.done.stderr.splitlines() if "suite.toml:" in line]
    assert len(lines) == 2
    assert "has a setting 'histroy' whose largest value can be found" in ran.done.stderr
    assert "optimizer 'adam' has no setting 'history_size'" in ran.done.stderr


def test_trials_of_a_search_have_the_size_that_was_found(run_suite, above_base):
    text = SUITE.format(limit=above_base(40)).replace("seeds = 2", "seeds = 1")
    ran = run_suite(text.replace('["sgd", "adam"]', '"adam"') + "tune = { trials = 2 }\n")
    assert ran.done.returncode == 0, ran.done.stderr
    cells = ran.cells("batches")
    assert [cell["trial"] is None for cell in cells] == [False, False, True]
    (size,) = {cell["ran"]["batch_size"] for cell in cells}
    assert size > 32
