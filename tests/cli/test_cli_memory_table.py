"""Where the memory of real cells went: models whose parts can be computed."""

from __future__ import annotations

import json

import pytest
from cli_process import one_line

from xbench.report.breakdown import PARTS

# Sizes are fitted to a limit, which holds all of them, so that malloc keeps nothing that is freed.
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
  {{ name = "lbfgs", history_size = 3, max_iter = 2 }},
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
def memory(ran):
    """The optimizer's memory, by its label."""
    assert ran.done.returncode == 0, ran.done.stderr
    return {cell["column"]: cell["memory"] for cell in ran.cells("parameters")}


def parts_of(memory) -> dict[str, int]:
    in_update = memory["peak_phase"] == "update"
    return {name: 0 if in_update and name == "activations_bytes" else memory[name] for name in PARTS}


@pytest.mark.parametrize(("column", "vectors"), [("adam", 2), ("sgd", 1), ("plain", 0), ("lbfgs", 8)])
def test_what_model_and_optimizer_hold(memory, column, vectors):
    """Two moments; momentum; nothing; three pairs, the direction and the previous gradient."""
    found = memory[column]
    assert found["parameters_bytes"] == found["gradients_bytes"] == P
    assert found["expected_state_vectors"] == vectors
    assert found["state_vectors"] == pytest.approx(vectors, abs=1e-3)  # Adam counts its steps in tensors
    assert found["optimizer_state_bytes"] == pytest.approx(vectors * P, abs=1000)
    assert found["data_bytes"] == 12 * EXAMPLE_BYTES


@pytest.mark.parametrize("column", ["adam", "sgd", "plain", "lbfgs"])
def test_parts_make_up_the_peak(memory, column):
    """What remains is a constant: what libraries load after the first step, some 10 MB here, whatever the
    optimizer. Half a vector of parameters that is missed, or counted twice, would show."""
    found = memory[column]
    remainder = found["peak_host_bytes"] - sum(parts_of(found).values())
    assert found["malloc"] == "exact"
    assert -P / 2 < remainder < P


def test_activations_of_a_single_layer(ran):
    """The hidden layer's outputs after the ReLU, and the gradients before and after it."""
    (cell,) = ran.cells("activations", "mlp")
    found = cell["memory"]
    assert cell["ran"]["batch_size"] == 360
    computed = 3 * 4 * 360 * 25_000
    assert found["peak_phase"] == "closure"
    assert found["activations_bytes"] == pytest.approx(computed, rel=0.2)
    # The weights' gradients are counted beside them, although they come when some of these are free.
    assert found["activations_bytes"] + found["gradients_bytes"] == pytest.approx(computed, rel=0.15)


def test_activations_that_nothing_else_hides(ran):
    (cell,) = ran.cells("activations-alone")
    assert cell["memory"]["activations_bytes"] == pytest.approx(360 * 4 * 192 * 500, rel=0.05)


class TestShow:
    def test_the_table(self, ran, xbench):
        shown = xbench(ran.folder, "show", "--memory")
        assert shown.returncode == 0
        for title in (*PARTS.values(), "remainder", "peak", "limit", "optimizer state, in P"):
            assert f"\u2502 {title} " in shown.stdout
        assert "8.00 P" in shown.stdout
        assert "P: the parameters that are trained." in one_line(shown.stdout)
        assert "test accuracy" not in shown.stdout

    def test_markdown(self, ran, xbench):
        shown = xbench(ran.folder, "show", "--memory", "--format", "markdown").stdout
        assert "| parameters | 20 MB | 20 MB | 20 MB | 20 MB |" in shown
        assert "| optimizer state, in P | 2.00 P | 1.00 P | 0.00 P | 8.00 P |" in shown

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
