"""What a run's display says of each kind of work, when it takes long. Time is a number that tests set."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbench.capacity.tuning import TimedMicroBatch
from xbench.cli.progress import ProgressDisplay
from xbench.records.capacity import TrialRecord
from xbench.records.memory import MemoryRecord
from xbench.records.schema import (
    CellKey,
    CellRecord,
    Component,
    DataRecord,
    EpochRecord,
    MetricRecord,
    RunRecord,
    Times,
)
from xbench.records.traces import TraceRow
from xbench.training.events import Compiling, EpochDone, Evaluating, Prepared, StepsDone

CELL = CellKey(cell_id="a", experiment="table-1", column="sgd", seed=0)
OTHER = CellKey(cell_id="b", experiment="table-1", column="lbfgs", seed=0)
MB = 10**6


@pytest.fixture
def display(clock, printed) -> ProgressDisplay:
    return ProgressDisplay(clock)


@pytest.fixture
def line(display, clock, printed):
    """`line()`: the one line that is printed when nothing happens for half a minute."""

    def after() -> str:
        printed()
        clock.now_s += 30
        display.display.print_if_due()
        (line,) = printed().splitlines()
        return line

    return after


def prepared(**values) -> Prepared:
    return Prepared(**{"ran": {}, "steps": 40, "epochs": 4, "memory": MemoryRecord(), **values})


def step(number: int, epoch: int = 1, host: int = 0, device: int | None = None) -> StepsDone:
    return StepsDone((TraceRow(number, epoch, 0.5, 0.1, 1, host, device, device),))


def run(*cells: CellKey, **fields) -> RunRecord:
    values = {"started_at": "2026-01-31T12:00:00+00:00", "device": "cpu", "versions": {}, "hardware": {}}
    return RunRecord(suite="suite", experiments=[], cells=list(cells), **values, **fields)


def ended(metrics: dict[str, float]) -> CellRecord:
    return CellRecord(
        **CELL.model_dump(),
        model=Component(name="report-cnn"),
        dataset=DataRecord(requested="set", name="set"),
        optimizer=Component(name="sgd"),
        status="done",
        metrics=metrics,
        time=Times(training_s=2.0),
        started_at="2026-01-31T12:00:00+00:00",
        ended_at="2026-01-31T12:01:00+00:00",
    )


def start(display: ProgressDisplay, **values) -> None:
    """Begin the first of two cells."""
    display.run_started(Path("results/suite/run"), run(CELL, OTHER), [])
    display.cell_started(CELL)
    display.attempt_started(CELL)
    display.cell_message(prepared(**values))


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (lambda d: d.working("trying the models"), "trying the models: 30.0 s so far"),
        (lambda d: d.decoding("set", 5, 10), "decoding set: 5 of 10 images, 30.0 s so far, 30.0 s left"),
        (
            lambda d: d.fetching("vgg16.pth", 30 * MB, 60 * MB),
            "downloading vgg16.pth: 30 MB of 60 MB, 30.0 s so far, 1.00 MB/s, 30.0 s left",
        ),
        (
            lambda d: d.fetching("vgg16.pth (verifying it)", 0, 0),
            "downloading vgg16.pth (verifying it): 30.0 s so far",
        ),
        (
            lambda d: d.estimating(CELL, 2, 8),
            "estimating the time of table-1 / sgd / seed 0: 2 of 8 cells, 30.0 s so far",
        ),
        (lambda d: d.fitting(CELL, "train_size"), "fitting train_size of table-1 / sgd: 30.0 s so far"),
        (
            lambda d: d.trying(CELL, "train_size", 1400),
            "trying train_size 1,400 of table-1 / sgd: 30.0 s so far",
        ),
        (lambda d: d.measuring_memory(CELL), "measuring the memory of table-1 / sgd: 30.0 s so far"),
        (
            lambda d: d.computing_features(CELL, 0, 0),
            "features for table-1 / sgd / seed 0: 30.0 s so far",
        ),
        (
            lambda d: d.computing_features(CELL, 20, 40),
            "features for table-1 / sgd / seed 0: 20 of 40 examples, 30.0 s so far, 30.0 s left",
        ),
    ],
)
def test_work_before_cells(display, line, report, expected):
    report(display)
    assert line() == expected


def test_a_cell_from_its_start_to_its_score(display, line):
    start(display)
    assert line() == "[1/2] table-1 / sgd / seed 0: step 0 of 40, 30.0 s so far, epoch 1/4"
    display.cell_message(step(10, host=500 * MB))
    told = "[1/2] table-1 / sgd / seed 0: step 10 of 40, 1m 00s so far, 3m 00s left, loss 0.5000, epoch 1/4"
    assert line() == f"{told}, 500 MB"
    display.cell_message(Evaluating(0, 100))
    told = "[1/2] table-1 / sgd / seed 0: evaluating after step 10 of 40"
    assert line() == f"{told}: 0 of 100 examples, 30.0 s so far"
    display.cell_message(Evaluating(50, 100))
    assert "50 of 100 examples, 1m 00s so far, 1m 00s left" in line()
    record = EpochRecord(epoch=1, values={"train_loss": 0.5, "validation_loss": 0.25})
    display.cell_message(EpochDone(record))
    assert line().endswith("step 10 of 40, 2m 30s so far, 7m 30s left, epoch 1/4, validation loss 0.2500")
    display.cell_message(step(20, epoch=2))
    assert "step 20 of 40, 3m 00s so far, 3m 00s left, loss 0.5000, epoch 2/4" in line()


def test_compiling_is_told_in_shapes(display, line):
    display.run_started(Path("run"), run(CELL), [])
    display.cell_started(CELL)
    display.cell_message(Compiling(0, 5))
    told = "[1/1] table-1 / sgd / seed 0: compiling the model"
    assert line().startswith(f"{told}: 0 of 5 shapes, ")
    display.cell_message(Compiling(2, 5))
    assert line().startswith(f"{told}: 2 of 5 shapes, ")


def test_an_ended_cell_is_told_with_its_first_metric_of_the_test_split_or_else_of_any(display, printed):
    declared = [
        MetricRecord(name="train_error", title="train error", direction="min", split="train"),
        MetricRecord(name="error", title="mean error", unit="years", direction="min", split="test"),
        MetricRecord(name="share", title="share", direction="max", split="test"),
    ]
    display.run_started(Path("run"), run(CELL, metrics=declared), [])
    display.cell_started(CELL)
    printed()
    for metrics, told in (
        ({"train_error": 1.0, "error": 4.5, "share": 0.5}, ", mean error 4.500 years, training 2.00 s"),
        ({"train_error": 1.0, "share": 0.5}, ", share 0.500, training 2.00 s"),
        ({"train_error": 1.0}, ", train error 1.000, training 2.00 s"),
        ({}, ""),
    ):
        display.cell_ended(ended(metrics))
        assert printed().splitlines() == [f"[1/1] table-1 / sgd / seed 0: done{told}"]


def test_two_evaluations_in_a_row_each_have_their_own_time(display, line):
    start(display)
    display.cell_message(Evaluating(0, 60))
    line()
    display.cell_message(Evaluating(0, 60))
    assert line().endswith("evaluating after step 0 of 40: 0 of 60 examples, 30.0 s so far")


def test_the_parts_of_a_cell_before_it_trains(display, line):
    display.run_started(Path("run"), run(CELL), [])
    display.cell_started(CELL)
    assert line() == "[1/1] table-1 / sgd / seed 0: preparing: 30.0 s so far"
    display.measuring_memory(CELL)
    display.attempt_started(CELL)
    assert line() == "[1/1] table-1 / sgd / seed 0: loading the model and the data: 30.0 s so far"


def test_a_cell_that_was_resumed_tells_its_time_left_from_there(display, line):
    start(display, resumed_at=20)
    display.cell_message(step(30, epoch=3))
    assert "step 30 of 40, 30.0 s so far, 30.0 s left" in line()


def test_after_features_the_work_that_needed_them_goes_on(display, line):
    display.estimating(CELL, 0, 2)
    display.computing_features(CELL, 0, 0)
    display.computing_features(CELL, 16, 16)
    display.features_computed(CELL)
    assert line() == "estimating the time of table-1 / sgd / seed 0: 0 of 2 cells, 30.0 s so far"


@pytest.mark.parametrize(
    ("is_on_cuda", "host", "device", "shown"),
    [
        (False, 500 * MB, None, "500 MB"),
        (True, 500 * MB, 20 * MB, "20 MB"),
        (True, 500 * MB, None, ""),
        (True, 500 * MB, 0, ""),
        (False, 0, None, ""),
    ],
)
def test_the_peak_shown_is_that_of_the_device_where_known(display, line, is_on_cuda, host, device, shown):
    start(display, is_on_cuda=is_on_cuda)
    display.cell_message(step(1, host=host, device=device))
    assert line().endswith(f"epoch 1/4, {shown}" if shown else "epoch 1/4")


def test_the_peak_is_shown_beside_the_limit(display, line):
    start(display, memory=MemoryRecord(limit_bytes=1000 * MB))
    display.cell_message(step(1, host=250 * MB))
    assert line().endswith("epoch 1/4, 250 MB of 1.00 GB")
    assert display.display.current.memory_share == 0.25


def test_sizes_are_told_as_they_are_tried(display, printed):
    display.fitting(CELL, "micro_batch")
    display.micro_batch_timed(CELL, TimedMicroBatch(4, 0.0123))
    display.fitting(
        CELL, "micro_batch", TrialRecord(value=4, outcome="fits", peak_bytes=100 * MB, seconds=2.0)
    )
    assert printed().splitlines() == [
        "fitting micro_batch of table-1 / sgd",
        "  micro_batch 4: 12.3 ms per example",
        "  micro_batch 4: fits, peak 100 MB (2.00 s)",
    ]


def test_each_kind_of_work_is_announced_once(display, printed):
    for done in (0, 5, 10):
        display.decoding("set", done, 10)
        display.fetching("vgg16.pth", done, 10)
        display.estimating(CELL, done, 10)
    display.machine_is_busy()
    display.machine_is_busy()
    display.waiting_for_quiet(60.0)
    display.waiting_for_quiet(55.0)
    assert printed().splitlines() == [
        "decoding 10 images of set, once",
        "downloading vgg16.pth",
        "estimating times",
        "warning: other programs are using the CPU, so timings may be too high",
        "waiting for the machine to become idle before measuring, for at most 1m 00s",
    ]


class TestOutcome:
    """What an interrupted run says that it has left."""

    def test_before_the_run(self, display):
        assert display.describe_outcome() == ""

    def test_of_a_cell_that_is_not_saved(self, display):
        start(display)
        assert display.describe_outcome() == "no cell has ended; nothing of table-1 / sgd / seed 0 is saved"

    def test_of_a_saved_cell(self, display, tmp_path):
        display.run_started(tmp_path, run(CELL, OTHER), [])
        display.cells_kept(1, 2)
        display.cell_started(OTHER)
        (tmp_path / "checkpoints/b/step-1200").mkdir(parents=True)
        assert display.describe_outcome() == (
            f"1 of 2 cells has ended, recorded in {tmp_path}; "
            "the next run continues table-1 / lbfgs / seed 0 after step 1,200"
        )

    def test_between_cells(self, display):
        start(display)
        display.cell_ended(ended({}))
        assert display.describe_outcome() == "1 of 2 cells has ended, recorded in results/suite/run"
