"""Where the memory of real cells went: models whose parts can be computed."""

from __future__ import annotations

import json

import pytest

from tests.cli.cli_process import one_line
from xbench.report.breakdown import PARTS

pytestmark = pytest.mark.slow

SUITE = """
[suite]
name = "parts"
memory_limit = "{limit}"

[[experiment]]
name = "parameters"
model = {{ name = "sized_parts:build_mlp", hidden = 25_000 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 40, test = 10 }}
train_size = "largest"
batch_size = 12
epochs = 4
optimizer = [
  {{ name = "adam", lr = 1e-3 }},
  {{ name = "sgd", lr = 1e-3, momentum = 0.9 }},
  {{ label = "plain", name = "sgd", lr = 1e-3 }},
  {{ name = "lbfgs", lr = 0.1, history_size = 3, max_iter = 2 }},
]

[[experiment]]
name = "activations"
model = {{ name = "sized_parts:build_mlp", hidden = 25_000 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 400, test = 10 }}
train_size = "largest"
batch_size = "full"
optimizer = {{ label = "mlp", name = "sgd", lr = 1e-3 }}

[[experiment]]
name = "activations-alone"
model = {{ name = "sized_parts:build_wide", copies = 500 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 400, test = 10 }}
train_size = "largest"
batch_size = "full"
optimizer = "sgd"
"""
P = 4 * (192 * 25_000 + 25_000 + 25_000 * 2 + 2)
EXAMPLE_BYTES = 192 * 4 + 8


@pytest.fixture(scope="module")
def ran(run_suite, above_base):
    return run_suite(SUITE.format(limit=above_base(1500)))


@pytest.fixture(scope="module")
def cells(ran):
    """The optimizers' cells, by their labels."""
    assert ran.done.returncode == 0, ran.done.stderr
    return {cell["column"]: cell for cell in ran.cells("parameters")}


@pytest.mark.parametrize(("column", "vectors"), [("adam", 2), ("sgd", 1), ("plain", 0), ("lbfgs", 8)])
def test_what_model_and_optimizer_hold(cells, column, vectors):
    """Two moments; momentum; nothing; three pairs, the direction and the previous gradient."""
    ran, measured = cells[column]["memory"], cells[column]["memory_pass"]
    assert ran["parameters_bytes"] == measured["parameters_bytes"] == P
    assert ran["expected_state_vectors"] == vectors
    assert ran["state_vectors"] == pytest.approx(vectors, abs=1e-3)  # Adam counts its steps in tensors
    assert ran["optimizer_state_bytes"] == pytest.approx(vectors * P, abs=1000)
    assert measured["final_state_bytes"] == pytest.approx(vectors * P, abs=1000)
    assert measured["data_bytes"] == 12 * EXAMPLE_BYTES


@pytest.mark.parametrize("column", ["adam", "sgd", "plain", "lbfgs"])
def test_parts_make_up_the_peak(cells, column):
    measured = cells[column]["memory_pass"]
    assert sum(measured[part] for part in PARTS) == measured["peak_bytes"]
    # What is left for the process is the same whatever the optimizer: half a vector of parameters that is
    # missed, or counted twice, would show.
    others = [cell["memory_pass"]["process_bytes"] for cell in cells.values()]
    assert max(others) - min(others) < P / 2


def test_activations_of_a_single_layer(ran):
    """The hidden layer's outputs after the ReLU, and the gradients before and after it."""
    (cell,) = ran.cells("activations", "mlp")
    measured = cell["memory_pass"]
    assert cell["ran"]["batch_size"] == 360
    computed = 3 * 4 * 360 * 25_000
    assert measured["peak_phase"] == "closure"
    assert measured["activations_bytes"] == pytest.approx(computed, rel=0.2)
    # Some of the weights' gradients stand by the time that some of these are free.
    assert measured["activations_bytes"] + measured["gradients_bytes"] == pytest.approx(computed, rel=0.15)


def test_activations_that_nothing_else_hides(ran):
    (cell,) = ran.cells("activations-alone")
    assert cell["memory_pass"]["activations_bytes"] == pytest.approx(360 * 4 * 192 * 500, rel=0.05)


class TestShow:
    def test_the_table(self, ran, xbench):
        shown = xbench(ran.folder, "show", "--memory")
        assert shown.returncode == 0
        for title in (*PARTS.values(), "peak", "limit", "optimizer state at the end"):
            assert f"\u2502 {title} " in shown.stdout
        assert "8.00 P" in shown.stdout
        assert "P: the trained parameters." in one_line(shown.stdout)
        assert "test accuracy" not in shown.stdout

    def test_markdown(self, ran, xbench):
        shown = xbench(ran.folder, "show", "--memory", "--format", "markdown").stdout
        assert "| parameters | 20 MB | 20 MB | 20 MB | 20 MB |" in shown
        assert "| optimizer state at the end | 2.00 P | 1.00 P | 0.00 P | 8.00 P |" in shown

    def test_json_has_the_same_records(self, ran, xbench):
        plain = json.loads(xbench(ran.folder, "show", "--format", "json").stdout)
        memory = json.loads(xbench(ran.folder, "show", "--memory", "--format", "json").stdout)
        for one, other in zip(plain["experiments"], memory["experiments"], strict=True):
            assert one["cells"] == other["cells"]

    def test_csv_is_unaffected(self, ran, xbench):
        assert (
            xbench(ran.folder, "show", "--memory", "--format", "csv").stdout
            == xbench(ran.folder, "show", "--format", "csv").stdout
        )
