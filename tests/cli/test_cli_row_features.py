"""A frozen backbone on rows: its output is computed once per row, as it is for images."""

from __future__ import annotations

import pytest

from tests.cli.cli_process import one_line

pytestmark = pytest.mark.slow

EXPERIMENT = """
[[experiment]]
name = "{name}"
model = "task_parts:build_frozen"
dataset = {{ name = "task_parts:build_rows", validation = 4, task = "{task}" }}
optimizer = ["sgd", "adam"]
batch_size = 8
epochs = 2
features = "{features}"
"""
CASES = {
    "kept": ("", "auto"),
    "off": ("", "off"),
    "reads": ("reads", "auto"),
    "strict": ("reads", "float32"),
}
SUITE = 'suite.name = "row-features"' + "".join(
    EXPERIMENT.format(name=name, task=task, features=features) for name, (task, features) in CASES.items()
)
NOTE = "the task itself uses the model's inputs"


@pytest.fixture(scope="module")
def ran(run_suite):
    return run_suite(SUITE)


def test_cells_are_those_of_the_whole_model(ran):
    for kept, off in zip(ran.cells("kept"), ran.cells("off"), strict=True):
        assert kept["features"] == {"precision": "float32", "shape": [4], "note": ""}
        assert off["features"] == {"precision": None, "shape": [], "note": ""}
        assert kept["metrics"] == pytest.approx(off["metrics"], rel=1e-4)
        assert kept["memory"]["parameters_bytes"] == 4 * (4 + 1)
        assert off["memory"]["parameters_bytes"] == 4 * (4 * 4 + 4 + 4 + 1)
        assert kept["memory_pass"]["parameters_bytes"] == kept["memory"]["parameters_bytes"]


def test_features_are_computed_by_the_first_cell(ran):
    computed = [bool(cell["time"]["features_s"]) for cell in ran.cells("kept")]
    assert computed == [True, False]
    text = one_line(ran.done.stdout)
    assert "the output of its frozen part was computed once per example (float32)" in text
    assert "computing features" in text
    assert "computing features of 34 examples" in one_line(ran.done.stderr)


def test_a_cell_trains_without_them_and_says_why(ran):
    for cell in ran.cells("reads"):
        assert (cell["status"], cell["features"]["note"]) == ("done", NOTE)
    note = f"task_parts:build_frozen: its frozen part ran in every step: {NOTE}"
    assert note in one_line(ran.done.stdout)


def test_a_cell_that_requires_them_is_skipped(ran):
    for cell in ran.cells("strict"):
        assert (cell["status"], cell["reason"]) == ("skipped", f"features cannot be cached: {NOTE}")


def test_a_probe_of_a_setting_that_features_depend_on_runs_the_whole_model(xbench, allow_user_code, tmp_path):
    choices = ("--model", "task_parts:FROZEN", "--dataset", "task_parts:build_rows", "--optimizer", "sgd")
    done = xbench(tmp_path, "probe-capacity", *choices, "--axis", "hidden", *allow_user_code)
    assert done.returncode == 0, done.stderr
    text = one_line(done.stdout)
    assert "memory does not limit hidden up to 16" in text
    assert "features of the model's frozen part depend on hidden, so trials ran the whole model" in text
