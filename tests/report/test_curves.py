"""Traces are reduced to curves: means of bins, and how far training was."""

from __future__ import annotations

import math

import pytest

from tests.report.report_samples import cell, run
from tests.report.trace_samples import trace
from xbench.records.schema import ExperimentRecord
from xbench.records.store import RunFolder
from xbench.report.curves import BIN_STEPS, MIN_BINNED_STEPS, make_curves, read_curves


def curve_of(losses, **fields):
    record = cell("sgd", **fields)
    return make_curves([record], {record.cell_id: trace(losses)})[record.cell_id]


def test_a_short_trace_is_drawn_step_by_step():
    curve = curve_of([3.0, 2.0, 1.0])
    assert [(point.step, point.loss) for point in curve] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_bins_begin_at_two_thousand_steps():
    assert len(curve_of([1.0] * (MIN_BINNED_STEPS - 1))) == MIN_BINNED_STEPS - 1
    assert len(curve_of([1.0] * MIN_BINNED_STEPS)) == MIN_BINNED_STEPS // BIN_STEPS


def test_each_point_is_the_mean_of_200_batches():
    losses = [float(step) for step in range(1, 2001)]
    curve = curve_of(losses)
    assert [point.step for point in curve] == list(range(200, 2001, 200))
    assert [point.loss for point in curve][:2] == [100.5, 300.5]


@pytest.mark.parametrize(
    ("steps", "last"),
    [(2099, [1800, 2099]), (2100, [1800, 2100]), (2101, [2000, 2101]), (2199, [2000, 2199])],
)
def test_last_bin_is_neither_tiny_nor_lost(steps, last):
    assert [point.step for point in curve_of([1.0] * steps)][-2:] == last


def test_points_tell_how_far_training_was():
    record = cell("lbfgs")
    rows = trace([3.0, 2.0], wall_s=0.5, closures=4)
    (first, second) = make_curves([record], {record.cell_id: rows})[record.cell_id]
    assert (first.training_s, second.training_s) == (0.5, 1.0)
    assert (first.closures, second.closures) == (4, 8)


def test_the_last_batch_of_an_epoch_may_be_smaller():
    curve = curve_of(
        [1.0] * 6, ran={"train_size": 25, "batch_size": 10}
    )  # the sample's epochs have three steps
    assert [point.examples for point in curve] == [10, 20, 25, 35, 45, 50]


@pytest.mark.parametrize("ran", [{}, {"train_size": 25}, {"train_size": 25, "batch_size": "full"}])
def test_examples_are_unknown_without_sizes(ran):
    assert [point.examples for point in curve_of([1.0, 1.0], ran=ran)] == [None, None]


def test_all_seeds_of_a_column_are_binned_alike():
    long, short = cell("sgd", 0), cell("sgd", 1)
    traces = {long.cell_id: trace([1.0] * 2000), short.cell_id: trace([1.0] * 500)}
    curves = make_curves([long, short], traces)
    assert [point.step for point in curves[short.cell_id]] == [200, 500]


def test_a_bin_with_an_infinite_loss_is_not_finite():
    curve = curve_of([1.0] * 1999 + [math.inf])
    assert [math.isfinite(point.loss) for point in curve] == [True] * 9 + [False]


class TestReading:
    @pytest.fixture
    def folder(self, tmp_path):
        records = [cell("sgd", seed) for seed in range(4)]
        folder = RunFolder.create(tmp_path, "", run(records, ExperimentRecord(name="first", title="First")))
        for record in records[:3]:
            crc32 = folder.write_trace(record.cell_id, trace([2.0, 1.0]))
            folder.append(record.model_copy(update={"trace_crc32": crc32}))
        folder.append(records[3])
        return folder

    def test_missing_and_damaged_traces_are_absent(self, folder):
        declared, records = folder.read()
        folder.trace_path(records[1].cell_id).unlink()
        folder.trace_path(records[2].cell_id).write_bytes(b"PAR1")
        assert set(read_curves(folder, declared, records)) == {records[0].cell_id}

    def test_a_table_that_is_not_a_trace_is_absent(self, folder):
        import pyarrow

        from xbench.records.tables import write_table

        declared, records = folder.read()
        unchecked = [record.model_copy(update={"trace_crc32": None}) for record in records]
        write_table(folder.trace_path(records[0].cell_id), pyarrow.table({"step": [1]}))
        names = ("step", "epoch", "loss", "wall_s", "closures")
        others = ("host_peak_bytes", "device_peak_bytes", "device_reserved_bytes")
        texts = pyarrow.table({name: ["x"] for name in (*names, *others)})
        write_table(folder.trace_path(records[1].cell_id), texts)
        assert set(read_curves(folder, declared, unchecked)) == {records[2].cell_id}
