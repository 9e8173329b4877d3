"""The same suite at another time gives the same records, and the same optimizer under another name the same
curves: to the last bit."""

from __future__ import annotations

import pyarrow.parquet
import pytest

from tests.cli.cli_process import records_of

SUITE = """
[suite]
name = "repeated"
seeds = 2

[[experiment]]
name = "repeated"
model = "repeated_parts:build_dropout"
dataset = "repeated_parts:build_dataset"
validation = 0.2
selection = "validation_loss"
balance = "oversample"
class_weights = { bright = 2.0 }
epochs = 3
batch_size = 8
micro_batch = 3

  [[experiment.optimizer]]
  name = "adam"
  lr = 1e-2

  [[experiment.optimizer]]
  name = "repeated_parts:SameAdam"
  lr = 1e-2

  [[experiment.optimizer]]
  name = "repeated_parts:Noisy"
  lr = 1e-2

  [[experiment.optimizer]]
  name = "lbfgs"
  history_size = 3
  max_iter = 4
  line_search_fn = "strong_wolfe"
  batch_size = "full"
  micro_batch = 8
"""
COLUMNS = ("adam", "repeated_parts:SameAdam", "repeated_parts:Noisy", "lbfgs")
# What is another at another time, traces with their times included. Of memory, what tensors take is not.
MEASURED = {"time", "memory", "memory_pass", "started_at", "ended_at", "trace_crc32"}
EXACT_MEMORY = ("parameters_bytes", "optimizer_state_bytes", "state_vectors")
EXACT_PASS = ("cell_id", "configuration", "malloc", "parameters_bytes", "final_state_bytes")


class Times:
    """A run of the suite.

    Attributes:
        lines: of `cells.jsonl`, as they were written.
        curves: (optimizer, seed) -> step, epoch, loss and closures of each step.
        cells: (optimizer, seed) -> line.
    """

    def __init__(self, ran):
        assert ran.done.returncode == 0, ran.done.stderr
        self.lines = records_of(ran.folder)
        self.cells = {(line["optimizer"]["name"], line["seed"]): line for line in self.lines}
        (traces,) = ran.folder.glob("results/repeated/*/traces")
        self.curves = {
            key: pyarrow.parquet.read_table(
                traces / f"{line['cell_id']}.parquet", columns=["step", "epoch", "loss", "closures"]
            ).to_pylist()
            for key, line in self.cells.items()
        }


@pytest.fixture(scope="module")
def first(run_suite):
    return Times(run_suite(SUITE))


@pytest.fixture(scope="module")
def second(run_suite):
    return Times(run_suite(SUITE))


def assert_every_cell_ran(times):
    assert set(times.cells) == {(name, seed) for name in COLUMNS for seed in (0, 1)}
    assert len({line["cell_id"] for line in times.lines}) == len(times.lines) == 8
    assert {line["status"] for line in times.lines} == {"done"}


def test_every_cell_ran_by_itself(first):
    """None is another one's, which would be the same in any case."""
    assert_every_cell_ran(first)


@pytest.mark.slow
def test_every_cell_ran_at_another_time(first, second):
    assert_every_cell_ran(second)
    assert not {line["started_at"] for line in first.lines} & {line["started_at"] for line in second.lines}


def test_what_could_differ_does(first):
    """Between seeds and optimizers, and within a curve."""
    losses = {key: [row["loss"] for row in rows] for key, rows in first.curves.items()}
    for (name, seed), values in losses.items():
        assert len(set(values)) == len(values) > 2
        assert values != losses[name, 1 - seed]
        assert name in COLUMNS[:2] or values != losses["adam", seed]


def drop_times(evaluations):
    return [{key: value for key, value in one.items() if key != "training_s"} for one in evaluations]


@pytest.mark.slow
@pytest.mark.parametrize("place", range(8))
def test_records_are_the_same_at_another_time(first, second, place):
    one, other = first.lines[place], second.lines[place]
    assert set(one) == set(other)
    for field in set(one) - MEASURED - {"evaluations"}:
        assert one[field] == other[field], field
    assert drop_times(one["evaluations"]) == drop_times(other["evaluations"]) != []
    for field in EXACT_MEMORY:
        assert one["memory"][field] == other["memory"][field], field
    for field in EXACT_PASS:
        assert one["memory_pass"][field] == other["memory_pass"][field], field


@pytest.mark.slow
def test_curves_are_the_same_at_another_time(first, second):
    assert first.curves == second.curves


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("field", ["metrics", "epochs", "selected_epoch", "ran", "steps", "closures"])
def test_an_optimizer_is_as_good_as_itself(first, seed, field):
    assert first.cells["adam", seed][field] == first.cells["repeated_parts:SameAdam", seed][field]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_optimizer_has_its_own_curve_bit_for_bit(first, seed):
    assert first.curves["adam", seed] == first.curves["repeated_parts:SameAdam", seed]
