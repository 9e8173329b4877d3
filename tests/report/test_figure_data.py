"""The figures of a run: which there are, and what is in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from tests.report.report_samples import STAND_IN, cell, failed, memory_pass, run
from tests.report.trace_samples import trace
from xbench.records.memory import MemoryRecord
from xbench.records.schema import CellRecord, Component, DataRecord, ExperimentRecord, Times
from xbench.records.traces import TraceRow
from xbench.report.comparison import comparisons
from xbench.report.curves import make_curves
from xbench.report.figure import Figure, name_figures
from xbench.report.figure_data import make_figures
from xbench.report.loss_figures import MAX_LINES

MB = 10**6
EMPTY = DataRecord(requested="chest-xray", name="chest-xray")


def figures_of(
    records: Sequence[CellRecord], traces: Mapping[str, Sequence[TraceRow]] | None = None, **fields
) -> dict[str, Figure]:
    """The figures of the experiment "first", by key.

    Args:
        traces: cell ID -> trace.
    """
    declared = run(records, **fields)
    curves = {}
    for column in dict.fromkeys(record.column for record in records):
        cells = [record for record in records if record.column == column]
        own = {r.cell_id: traces[r.cell_id] for r in cells if traces and r.cell_id in traces}
        curves |= make_curves(cells, own)
    figures = make_figures(declared, records, curves, comparisons(declared, list(records)))
    return {figure.key: figure for figure in figures}


def traced(*losses: Sequence[float], column: str = "sgd", **fields):
    """A column with a seed for each list of losses.

    Returns:
        Its records and traces.
    """
    records = [cell(column, seed, **fields) for seed in range(len(losses))]
    return records, {r.cell_id: trace(found) for r, found in zip(records, losses, strict=True)}


def by_name(figure: Figure) -> dict[str, tuple]:
    return {series.name: (series.x, series.y) for series in figure.series}


class TestLoss:
    def test_a_line_for_each_optimizer_against_each_measure(self):
        sgd, its = traced([3.0, 2.0])
        adam, others = traced([1.0, 0.5], column="adam")
        figures = figures_of(sgd + adam, its | others)
        assert by_name(figures["loss-steps"]) == {
            "sgd": ((1.0, 2.0), (3.0, 2.0)),
            "adam": ((1.0, 2.0), (1.0, 0.5)),
        }
        assert by_name(figures["loss-time"])["sgd"] == ((0.25, 0.5), (3.0, 2.0))
        assert by_name(figures["loss-closures"])["sgd"] == ((1.0, 2.0), (3.0, 2.0))
        assert by_name(figures["loss-examples"])["sgd"] == ((5.0, 10.0), (3.0, 2.0))

    def test_labels_have_units(self):
        figures = figures_of(*traced([3.0, 2.0]))
        assert figures["loss-steps"].y_label == "training loss (nats)"
        assert figures["loss-time"].x_label == "training time (s)"

    def test_long_times_are_in_minutes_and_hours(self):
        (record,) = records = [cell("sgd")]
        for wall_s, label, x in ((600.0, "min", (10.0, 20.0)), (7200.0, "h", (2.0, 4.0))):
            figure = figures_of(records, {record.cell_id: trace([2.0, 1.0], wall_s=wall_s)})["loss-time"]
            assert (figure.x_label, figure.series[0].x) == (f"training time ({label})", x)

    def test_bands_reach_from_the_lowest_seed_to_the_highest(self):
        figure = figures_of(*traced([3.0, 2.0], [5.0, 1.0], [4.0, 3.0]))["loss-steps"]
        (line,) = figure.series
        assert line.y == (4.0, 2.0)
        assert (line.low, line.high) == ((3.0, 1.0), (5.0, 3.0))
        assert "bands reach from the lowest seed to the highest" in figure.note

    def test_one_seed_has_no_band(self):
        figure = figures_of(*traced([3.0, 2.0]))["loss-steps"]
        assert (figure.series[0].low, figure.series[0].high) == ((), ())
        assert "band" not in figure.note

    def test_a_line_ends_with_its_shortest_seed(self):
        """Means over fewer seeds would make it jump."""
        records, traces = traced([4.0, 2.0], [2.0])
        records[1] = failed("sgd", "diverged", "the loss is not finite", seed=1, steps=1)
        figure = figures_of(records, traces)["loss-steps"]
        assert figure.series[0].y == (3.0,)
        assert "Ended early: sgd (seed 1): diverged." in figure.note

    def test_missing_traces_are_named(self):
        records, traces = traced([3.0, 2.0], [3.0, 2.0], steps=2)
        del traces[records[1].cell_id]
        figure = figures_of(records, traces)["loss-steps"]
        assert "trace is missing or damaged: sgd (seed 1)." in figure.note
        assert figure.series[0].low == ()

    def test_cells_that_took_no_step_miss_no_trace(self):
        records, traces = traced([3.0, 2.0])
        records.append(failed("lbfgs", "skipped", "no time"))
        figure = figures_of(records, traces)["loss-steps"]
        assert "missing" not in figure.note
        assert list(by_name(figure)) == ["sgd"]

    def test_losses_that_are_not_finite_are_left_out_and_named(self):
        figure = figures_of(*traced([3.0, math.nan, 1.0, math.inf]))["loss-steps"]
        assert by_name(figure) == {"sgd": ((1.0, 3.0), (3.0, 1.0))}
        assert "not finite: sgd (seed 0), from step 2." in figure.note

    def test_times_that_are_not_ranked_are_marked(self):
        disturbed = Times(training_s=100.0, waiting_share=0.5)
        figures = figures_of(*traced([3.0, 2.0], time=disturbed))
        (line,) = figures["loss-time"].series
        assert (line.name, line.is_ranked) == ("sgd *", False)
        assert "other programs" in figures["loss-time"].note
        (line,) = figures["loss-steps"].series
        assert (line.name, line.is_ranked) == ("sgd", True)

    def test_axes_are_logarithmic_where_lines_end_far_apart(self):
        sgd, its = traced([3.0] * 100)
        lbfgs, others = traced([3.0, 2.0], column="lbfgs")
        assert figures_of(sgd + lbfgs, its | others)["loss-steps"].is_x_log
        assert not figures_of(sgd, its)["loss-steps"].is_x_log

    @pytest.mark.parametrize(("lowest", "is_log"), [(0.01, True), (1.0, False), (0.0, False), (-1.0, False)])
    def test_losses_are_logarithmic_if_they_are_positive_and_differ(self, lowest, is_log):
        assert figures_of(*traced([3.0, lowest]))["loss-steps"].is_y_log is is_log

    def test_too_many_optimizers_are_counted(self):
        records, traces = [], {}
        for number in range(MAX_LINES + 1):
            found, own = traced([1.0], column=f"opt{number}")
            records, traces = records + found, traces | own
        figure = figures_of(records, traces)["loss-steps"]
        assert len(figure.series) == MAX_LINES
        assert f"The first {MAX_LINES} of {MAX_LINES + 1} optimizers are drawn." in figure.note


class TestMemory:
    def test_a_layer_for_each_part_that_holds_memory(self):
        records = [
            cell("sgd", memory_pass=memory_pass(process=400, activations=900)),
            cell("adam", memory_pass=memory_pass(process=400, activations=900, optimizer_state=20)),
        ]
        figure = figures_of(records)["memory"]
        assert figure.y_label == "memory (GB)"
        assert by_name(figure) == {
            "process and libraries": (("sgd", "adam"), (0.4, 0.4)),
            "optimizer state": (("sgd", "adam"), (0.0, 0.02)),
            "activations": (("sgd", "adam"), (0.9, 0.9)),
        }
        assert figure.highest == pytest.approx(1.32)

    def test_seeds_are_averaged(self):
        records = [
            cell("sgd", seed, memory_pass=memory_pass(activations=size)) for seed, size in enumerate((10, 20))
        ]
        assert by_name(figures_of(records)["memory"]) == {"activations": (("sgd",), (15.0,))}

    def test_parts_beside_a_large_process_have_a_figure_of_their_own(self):
        records = [cell("sgd", memory_pass=memory_pass(process=400, activations=100, gradients=7))]
        figure = figures_of(records)["memory-beyond-process"]
        assert by_name(figure) == {"gradients": (("sgd",), (7.0,)), "activations": (("sgd",), (100.0,))}
        assert figure.limit is None
        assert "memory-beyond-process" not in figures_of(
            [cell("sgd", memory_pass=memory_pass(process=400, activations=500))]
        )

    def test_a_part_has_the_same_place_in_the_palette_everywhere(self):
        records = [cell("sgd", memory_pass=memory_pass(process=400, activations=100))]
        places = [
            {layer.name: layer.place for layer in figures_of(records)[key].series}["activations"]
            for key in ("memory", "memory-beyond-process")
        ]
        assert places[0] == places[1]

    def test_the_limit_stands_beside_the_bars(self):
        under = {"memory_pass": memory_pass(activations=600), "memory": MemoryRecord(limit_bytes=1000 * MB)}
        figure = figures_of([cell("sgd", **under)])["memory"]
        assert figure.limit == (1000.0, "limit: 1.00 GB")
        assert figure.is_limit_in_view

    def test_a_limit_far_above_the_bars_is_out_of_view(self):
        under = {"memory_pass": memory_pass(activations=600), "memory": MemoryRecord(limit_bytes=4000 * MB)}
        assert not figures_of([cell("sgd", **under)])["memory"].is_limit_in_view

    def test_the_lowest_of_several_limits_is_shown(self):
        records = [
            cell(name, memory_pass=memory_pass(activations=6), memory=MemoryRecord(limit_bytes=limit * MB))
            for name, limit in (("sgd", 20), ("adam", 10))
        ]
        assert figures_of(records)["memory"].limit == (10.0, "lowest limit: 10 MB")

    def test_optimizers_without_a_memory_pass_are_named(self):
        records = [
            cell("sgd", memory_pass=memory_pass(activations=6)),
            failed("lbfgs", "oom", "memory ran out"),
        ]
        figure = figures_of(records)["memory"]
        assert "Without a memory pass: lbfgs (oom)." in figure.note


def with_costs(column: str, accuracies: Sequence[float | None], training_s: float, peak_mb: int, **times):
    return [
        cell(
            column,
            seed,
            accuracy,
            time=Times(training_s=training_s, **times),
            memory_pass=memory_pass(activations=peak_mb),
        )
        for seed, accuracy in enumerate(accuracies)
    ]


class TestTradeoffs:
    def test_a_point_for_each_optimizer_and_the_front(self):
        records = [
            *with_costs("sgd", [0.8], 10.0, 100),
            *with_costs("adam", [0.7], 20.0, 200),
            *with_costs("lbfgs", [0.9], 30.0, 300),
        ]
        figures = figures_of(records)
        memory, time = figures["metric-memory"], figures["metric-time"]
        assert by_name(memory)["adam"] == ((200.0,), (0.7,))
        assert (memory.front.x, memory.front.y) == ((100.0, 300.0), (0.8, 0.9))
        assert (time.front.x, time.front.y) == ((10.0, 30.0), (0.8, 0.9))
        assert (memory.x_label, time.x_label) == ("peak memory (MB)", "training time (s)")
        assert memory.title == "Test accuracy against peak memory"
        assert memory.y_label == "test accuracy, higher is better"
        assert "one seed" in memory.note

    def test_intervals_over_the_seeds(self):
        (point,) = figures_of(with_costs("sgd", [0.8, 0.9], 10.0, 100))["metric-memory"].series
        assert point.y == pytest.approx((0.85,))
        assert point.low[0] < 0.8 and point.high[0] > 0.9

    def test_seeds_without_a_value_are_counted(self):
        figure = figures_of(with_costs("sgd", [0.8, None], 10.0, 100))["metric-memory"]
        assert "sgd (1 of 2)" in figure.note

    def test_a_single_point_has_no_front(self):
        assert figures_of(with_costs("sgd", [0.8], 10.0, 100))["metric-memory"].front is None

    def test_times_that_are_not_ranked_are_marked_and_left_out_of_the_front(self):
        records = [
            *with_costs("sgd", [0.8], 10.0, 100),
            *with_costs("adam", [0.7], 5.0, 200),
            *with_costs("best", [0.99], 8.0, 50, waiting_share=0.5),
        ]
        figures = figures_of(records)
        (marked,) = (points for points in figures["metric-time"].series if not points.is_ranked)
        assert marked.name == "best *"
        assert figures["metric-time"].front.x == (5.0, 10.0)
        assert "best, because other programs" in figures["metric-time"].note
        assert figures["metric-memory"].front.x == (50.0,)  # memory is not disturbed

    def test_lower_is_better_for_a_loss(self):
        (loss,) = (metric for metric in run([]).metrics if metric.name == "test_loss")
        records = [
            *(r.model_copy(update={"metrics": {"test_loss": 0.3}}) for r in with_costs("sgd", [0], 1.0, 100)),
            *(r.model_copy(update={"metrics": {"test_loss": 0.1}}) for r in with_costs("adam", [0], 1.0, 90)),
        ]
        figure = figures_of(records, metrics=[loss])["metric-memory"]
        assert (figure.front.x, figure.front.y) == ((90.0,), (0.1,))
        assert figure.y_label == "test loss, lower is better"

    def test_the_first_declared_test_metric_is_drawn(self):
        records = [
            r.model_copy(update={"metrics": {"train_accuracy": 0.9, "auc": 0.8}})
            for r in with_costs("sgd", [0], 1.0, 100)
        ]
        assert figures_of(records)["metric-memory"].title == "AUC (from scores) against peak memory"

    def test_optimizers_without_a_value_are_named(self):
        records = [*with_costs("sgd", [0.8], 10.0, 100), failed("lbfgs", "oom", "memory ran out")]
        assert "a value is missing: lbfgs." in figures_of(records)["metric-memory"].note


def varied(column: str, params: dict, accuracy: float | None, seed: int = 0, **fields):
    optimizer = Component(name=column.split()[0], params=params)
    return cell(column, seed, accuracy, optimizer=optimizer, **fields)


class TestAxes:
    def test_a_line_joins_the_values_of_one_setting(self):
        records = [
            varied("sgd lr=0.1", {"lr": 0.1, "momentum": 0.9}, 0.7),
            varied("sgd lr=0.001", {"lr": 0.001, "momentum": 0.9}, 0.8),
            varied("adam lr=0.001", {"lr": 0.001}, 0.9),
        ]
        figure = figures_of(records)["metric-by-lr"]
        assert by_name(figure) == {"sgd": ((0.001, 0.1), (0.8, 0.7)), "adam": ((0.001,), (0.9,))}
        assert figure.is_x_log
        assert figure.x_label == "lr"

    def test_other_settings_in_titles_make_lines(self):
        records = [
            varied(f"sgd lr={lr} momentum={momentum}", {"lr": lr, "momentum": momentum}, lr + momentum)
            for lr in (0.1, 0.2)
            for momentum in (0.0, 0.5)
        ]
        figures = figures_of(records)
        assert by_name(figures["metric-by-lr"]) == {
            "sgd momentum=0.0": ((0.1, 0.2), (0.1, 0.2)),
            "sgd momentum=0.5": ((0.1, 0.2), (0.6, 0.7)),
        }
        assert set(by_name(figures["metric-by-momentum"])) == {"sgd lr=0.1", "sgd lr=0.2"}

    def test_training_settings_are_axes_too(self):
        records = [varied(f"sgd batch_size={n}", {}, 0.1 * n, settings={"batch_size": n}) for n in (2, 1)]
        figure = figures_of(records)["metric-by-batch-size"]
        assert by_name(figure) == {"sgd": ((1.0, 2.0), (0.1, 0.2))}

    @pytest.mark.parametrize("values", [("a", "b"), (True, False), (0.1,)])
    def test_other_settings_are_not_axes(self, values):
        records = [varied(f"sgd way={value}", {"way": value}, 0.5) for value in values]
        assert "metric-by-way" not in figures_of(records)

    def test_a_title_alone_is_not_a_setting(self):
        records = [varied(f"sgd lr={lr}", {}, 0.5) for lr in (1, 2)]
        assert "metric-by-lr" not in figures_of(records)

    def test_values_without_a_result_are_named(self):
        records = [varied(f"sgd lr={lr}", {"lr": lr}, 0.5) for lr in (0.1, 0.2)]
        records.append(
            failed("sgd lr=9.0", "diverged", "x", optimizer=Component(name="sgd", params={"lr": 9.0}))
        )
        assert "a value is missing: sgd lr=9.0." in figures_of(records)["metric-by-lr"].note


class TestWarnings:
    @pytest.mark.parametrize(
        ("fields", "warning"),
        [
            ({}, ""),
            (
                {"dataset": STAND_IN},
                "STAND-IN DATA: synthetic-xray (synthetic images) ran in place of chest-xray; "
                "these figures say nothing about chest-xray",
            ),
            (
                {"dataset": DataRecord(requested="made", name="made", stand_in="synthetic images")},
                "STAND-IN DATA: made (synthetic images)",
            ),
            (
                {"model": Component(name="vgg16", stand_in="random weights")},
                "STAND-IN WEIGHTS: vgg16 (random weights)",
            ),
        ],
    )
    def test_stand_ins_are_told_in_every_figure(self, fields, warning):
        records, traces = traced([3.0], **fields, memory_pass=memory_pass(activations=1))
        figures = figures_of(records, traces)
        assert len(figures) == 5
        assert {figure.warning for figure in figures.values()} == {warning}

    def test_a_warning_is_about_its_own_experiment(self):
        records = [
            cell("sgd", memory_pass=memory_pass(data=1), experiment="real"),
            cell("sgd", memory_pass=memory_pass(data=1), experiment="made up", dataset=STAND_IN),
        ]
        experiments = [ExperimentRecord(name=name, title=name) for name in ("real", "made up")]
        declared = run(records, *experiments)
        figures = make_figures(declared, records, {}, comparisons(declared, records))
        assert [(figure.experiment, bool(figure.warning)) for figure in figures] == [
            ("real", False),
            ("made up", True),
        ]


def test_figures_without_data_are_left_out():
    assert figures_of([failed("sgd", "skipped", "no time", dataset=EMPTY)]) == {}


def named(*places: tuple[str, str]) -> tuple[str, ...]:
    return name_figures([Figure(key, experiment, "", "lines", "", "", ()) for experiment, key in places])


class TestNames:
    def test_experiment_and_key(self):
        assert named(("table-2", "loss-steps")) == ("table-2-loss-steps",)

    def test_names_are_safe_and_distinct(self):
        names = named(
            ("../../etc", "x"), ("etc", "x"), ("ETC", "x"), ("\x1b\0/", ""), ("é" * 300, "loss-steps")
        )
        assert names == ("etc-x", "etc-x-2", "etc-x-3", "figure", "loss-steps")
