"""What is recorded of memory against children that hold known amounts."""

from __future__ import annotations

import os

import pytest

from tests.memory import known_jobs as jobs
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.training.settings import Choice

MB = jobs.MB
# Of the kernel's count of pages, which it batches thread by thread, and of the interpreter's own blocks.
TOLERANCE = 3 * MB
# And of what a cell does at its first step.
CELL_TOLERANCE = 8 * MB

# Each kind of step, and its peak above the base, in the amount that it takes.
STEPS = (
    ("freed", 1),
    ("kept", 1),
    ("freed", 2),
    ("shared", 3),
    ("kept", 2),
    ("shared", 4),
    ("dropped", 2),  # it began with all
    ("freed", 1),
    ("shared", 2),
)


@pytest.fixture(autouse=True)
def resettable():
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not let a process reset its peak")


@pytest.mark.parametrize(
    ("megabytes", "malloc"), [(5, "exact"), (40, "exact"), (120, "exact"), (40, "fast"), (120, "fast")]
)
def test_a_steps_peak_is_what_it_holds(megabytes, malloc):
    """With the fast settings of malloc, of blocks that they do not keep."""
    kinds, amounts = zip(*STEPS, strict=True)
    limits = Limits(malloc=malloc, threads=1)
    ending = run_in_child(jobs.rises_of_steps, megabytes, kinds, limits=limits)
    assert ending.value == pytest.approx([amount * megabytes * MB for amount in amounts], abs=TOLERANCE)


TRAINED, FROZEN, BUFFER = 6_000_000, 2_000_000, 1_000_000
LAST = 3 * 16 * 16 * 2 + 2
TENSORS = 3  # of parameters that are trained: two of the last layer, and the ballast


class TestCell:
    """A whole cell, in a process of its own."""

    @pytest.fixture
    def run(self, tiny_data, tmp_path):
        def run(job, name, params, malloc, **training):
            model = {"trained": TRAINED, "frozen": FROZEN, "buffer": BUFFER}
            training = {"validation": 0.0, "selection": "last", "train_size": 40, "batch_size": 10} | training
            args = (model, Choice(name, params), tiny_data, str(tmp_path), training)
            ending = run_in_child(job, *args, limits=Limits(threads=1, malloc=malloc))
            assert ending.outcome == "returned", ending.stderr
            return ending.value

        return run

    @pytest.mark.parametrize(
        ("name", "params", "vectors", "counters", "dtype"),
        [
            ("sgd", {}, 0, 0, "float32"),
            ("sgd", {"momentum": 0.9}, 1, 0, "float64"),
            ("rmsprop", {}, 1, 1, "float32"),
            ("adagrad", {}, 1, 1, "float32"),
            ("adam", {}, 2, 1, "float32"),
            ("adam", {"amsgrad": True}, 3, 1, "float64"),
        ],
        ids=str,
    )
    def test_is_exact(self, run, name, params, vectors, counters, dtype):
        """Counters are the numbers of steps that torch keeps of each parameter, in 4 bytes."""
        memory = run(jobs.train_ballast, name, params, "fast", dtype=dtype).memory
        measured = run(jobs.measure_ballast, name, params, "exact", dtype=dtype)
        size = 4 if dtype == "float32" else 8
        vector_bytes = size * (TRAINED + LAST)
        state_bytes = vectors * vector_bytes + 4 * counters * TENSORS
        parameters_bytes = vector_bytes + size * (FROZEN + BUFFER)
        assert memory.parameters_bytes == measured.parameters_bytes == parameters_bytes
        assert memory.optimizer_state_bytes == measured.final_state_bytes == state_bytes
        assert memory.state_vectors == memory.optimizer_state_bytes / vector_bytes
        assert memory.expected_state_vectors == vectors

        # What an update takes on top is torch's affair.
        assert measured.optimizer_state_bytes == state_bytes
        assert measured.gradients_bytes == pytest.approx(vector_bytes, abs=TOLERANCE)
        assert 0 <= measured.optimizer_work_bytes <= (0.1 if name == "sgd" else 3) * vector_bytes
        rise_bytes = (1 + vectors) * vector_bytes + measured.optimizer_work_bytes
        assert measured.above_base_bytes == pytest.approx(rise_bytes, abs=CELL_TOLERANCE)
        assert measured.optimizer_peak_bytes == pytest.approx(rise_bytes, abs=CELL_TOLERANCE)
