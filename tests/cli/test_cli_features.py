"""A model with a frozen backbone: its output is computed once per image, and what comes of it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from tests.cli.cli_process import one_line

pytestmark = pytest.mark.slow

HEAD = """
[suite]
name = "features"
seeds = 2
"""
EXPERIMENT = """
[[experiment]]
name = "{name}"
model = "{model}"
dataset = "tiny_parts:build_dataset"
optimizer = {optimizer}
batch_size = 6
epochs = 2
{more}
"""
SGD = '"sgd"'
LBFGS = 'name = "lbfgs", max_iter = 3, line_search_fn = "strong_wolfe", batch_size = "full", micro_batch = 8'
BOTH = f'["sgd", {{ {LBFGS} }}]'
IMAGES = 24 + 12
PRECISIONS = {"auto": "float32", "halves": "bfloat16", "fixed": "float32"}


def experiment(name, build="build", optimizer=SGD, more=""):
    model = build if ":" in build else f"frozen_parts:{build}"
    return EXPERIMENT.format(name=name, model=model, optimizer=optimizer, more=more)


SUITE = HEAD + "".join(
    [
        experiment("off", optimizer=BOTH, more='features = "off"'),
        experiment("auto", optimizer=BOTH),
        experiment("halves", more='features = "bfloat16"'),
        experiment("fixed", "build_fixed"),
        experiment("masked", "build_masked"),
        experiment("strict", "build_masked", more='features = "float32"'),
        experiment("plain", "tiny_parts:build_model"),
        experiment("whole", "build_frozen"),
        experiment("images", "build_frozen", more='features = "off"'),
    ]
)


@pytest.fixture(scope="module")
def ran(run_suite):
    ran = run_suite(SUITE)
    assert "Traceback" not in ran.done.stderr
    return ran


def losses(ran, cell):
    (path,) = ran.folder.glob(f"results/features/*/traces/{cell['cell_id']}.parquet")
    return pyarrow.parquet.read_table(path)["loss"].to_pylist()


class TestKept:
    def test_all_cells_are_done(self, ran):
        others = {cell["experiment"] for cell in ran.lines if cell["status"] != "done"}
        assert others == {"strict", "whole", "images"}

    @pytest.mark.parametrize("name", PRECISIONS)
    def test_records_say_what_was_trained_on(self, ran, name):
        for cell in ran.cells(name):
            expected = {"precision": PRECISIONS[name], "shape": [6], "note": ""}
            assert cell["features"] == expected

    def test_losses_and_scores_are_those_of_the_whole_model(self, ran):
        pairs = list(zip(ran.cells("off"), ran.cells("auto"), strict=True))
        assert [(off["column"], off["seed"]) for off, _ in pairs] == [
            (kept["column"], kept["seed"]) for _, kept in pairs
        ]
        assert len(pairs) == 4
        for off, kept in pairs:
            assert losses(ran, kept) == pytest.approx(losses(ran, off), rel=1e-4)
            assert kept["metrics"] == pytest.approx(off["metrics"], rel=1e-4)
            assert kept["selected_epoch"] == off["selected_epoch"]
            assert kept["closures"] == off["closures"]
            assert kept["cell_id"] != off["cell_id"]

    def test_halves_are_near(self, ran):
        for exact, half in zip(ran.cells("auto", "sgd"), ran.cells("halves"), strict=True):
            assert losses(ran, half) == pytest.approx(losses(ran, exact), rel=0.05)
            assert losses(ran, half) != losses(ran, exact)

    def test_only_the_head_is_held(self, ran):
        head_bytes = 4 * (6 * 8 + 8 + 8 * 2 + 2)
        front_bytes = 4 * (3 * 64 * 6 + 6)
        for cell in ran.cells("auto"):
            assert cell["memory"]["parameters_bytes"] == head_bytes
        for cell in ran.cells("off"):
            assert cell["memory"]["parameters_bytes"] == head_bytes + front_bytes

    def test_time_is_of_the_cell_that_computed_them(self, ran):
        """The second optimizer of a seed finds them; another seed has another front."""
        computed = [(c["column"], c["seed"]) for c in ran.cells("auto") if c["time"]["features_s"]]
        assert sorted(computed) == [("sgd", 0), ("sgd", 1)]
        assert [bool(cell["time"]["features_s"]) for cell in ran.cells("fixed")] == [True, False]
        assert not any(cell["time"]["features_s"] for cell in ran.cells("off"))

    def test_the_cache_holds_a_folder_for_each_front(self, ran, xbench):
        """Two seeds of two precisions, and one front that all seeds have."""
        folders = list(Path(xbench.environment["XBENCH_CACHE_DIR"], "features").iterdir())
        checksums = [np.fromfile(folder / "present", dtype="<u4") for folder in folders]
        mine = [rows for rows in checksums if len(rows) == IMAGES]
        assert len(mine) == 5
        assert all(rows.all() for rows in mine)

    def test_tables_say_so(self, ran):
        text = one_line(ran.done.stdout)
        for precision in ("float32", "bfloat16"):
            once = f"the output of its frozen part was computed once per example ({precision})"
            assert f"frozen_parts:build: {once}" in text
        assert "computing features" in text


class TestNotKept:
    def test_another_output_each_time(self, ran):
        for cell in ran.cells("masked"):
            features = cell["features"]
            assert (features["precision"], features["shape"]) == (None, [])
            assert features["note"].endswith("in training mode: masks (Dropout)")
        note = "frozen_parts:build_masked: its frozen part ran in every step: the frozen part before 'head'"
        assert note in one_line(ran.done.stdout)

    def test_and_they_were_asked_for(self, ran):
        cells = ran.cells("strict")
        assert [(cell["status"], cell["steps"]) for cell in cells] == [("skipped", 0)] * 2
        for cell in cells:
            assert cell["reason"].startswith("features cannot be cached: the frozen part before 'head'")
            assert "masks (Dropout)" in cell["reason"]
            assert cell["reason"] in one_line(ran.done.stdout)

    @pytest.mark.parametrize("name", ["plain", "off"])
    def test_nothing_is_to_be_told(self, ran, name):
        for cell in ran.cells(name):
            assert cell["features"] == {"precision": None, "shape": [], "note": ""}
        assert "tiny_parts:build_model: " not in one_line(ran.done.stdout).replace("build_model on", "")


class TestFrozenWhole:
    """Nothing can be trained, whatever becomes of its features; the other experiments run."""

    def test_the_cell_alone_fails(self, ran):
        assert ran.done.returncode == 1
        for name in ("whole", "images"):
            assert [cell["status"] for cell in ran.cells(name)] == ["error", "error"]

    @pytest.mark.parametrize("name", ["whole", "images"])
    def test_the_reason_is_told(self, ran, name):
        for cell in ran.cells(name):
            assert "all of the model's parameters are frozen: there is nothing to train" in cell["reason"]
