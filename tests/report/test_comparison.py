"""Tables as data: which columns and rows there are, what stands in them, what is noted below."""

from __future__ import annotations

import pytest

from tests.report.report_samples import REAL, STAND_IN, cell, failed, measured, run
from xbench.records.memory import MemoryRecord
from xbench.records.schema import Component, ExperimentRecord, FeaturesRecord, Times
from xbench.report.comparison import Comparison, comparisons
from xbench.report.document import FormattedTable


def compare(*records, reference=None, reference_note="", missing=()) -> Comparison:
    """The one comparison of a run with one experiment."""
    experiment = ExperimentRecord(
        name="first",
        title="First",
        reference=reference or {},
        reference_name="2021 report",
        reference_note=reference_note,
    )
    planned = run(records, experiment, missing=[("first", column) for column in missing])
    (comparison,) = comparisons(planned, list(records))
    return comparison


def row(comparison: Comparison, title: str) -> list[str]:
    """The figures of one row, without the marks of the best."""
    (found,) = [cells for cells in comparison.table.rows if cells[0] == title]
    return [cell.replace(" ★", "").replace(" ~", "") for cell in found[1:]]


def titles(comparison: Comparison) -> list[str]:
    return [cells[0] for cells in comparison.table.rows]


class TestFigures:
    def test_every_row(self):
        assert dict(compare(measured("adam")).table.rows) == {
            "train accuracy": "0.900",
            "test accuracy": "0.800",
            "AUC (from scores)": "0.850",
            "balanced accuracy": "0.750",
            "recall": "0.700",
            "precision": "0.650",
            "test loss": "0.457",
            "examples per epoch": "1,400",
            "batch": "5",
            "micro-batch": "5",
            "steps": "1,120",
            "closures": "4,480",
            "training time": "2m 05s",
            "step, median": "12.3 ms",
            "peak memory": "500 MB",
            "  above base": "90 MB",
            "  resident as it ran": "1.50 GB",
            "optimizer state": "2.00 MB",
        }

    def test_columns_in_the_order_of_the_plan(self):
        comparison = compare(
            cell("sgd", accuracy=0.7), cell("adam", accuracy=0.8), cell("lbfgs", accuracy=0.9)
        )
        assert comparison.table.header == ("", "sgd", "adam", "lbfgs")
        assert row(comparison, "test accuracy") == ["0.700", "0.800", "0.900"]

    def test_every_row_is_as_wide_as_the_header(self):
        comparison = compare(measured("sgd"), cell("adam"), reference={"sgd": {"auc": 0.5}})
        assert {len(cells) for cells in comparison.table.rows} == {len(comparison.table.header)}

    def test_missing_figure_is_a_dash(self):
        comparison = compare(cell("sgd", metrics={"precision": None}), cell("adam", metrics={"precision": 1}))
        assert row(comparison, "precision") == ["-", "1.000"]

    def test_row_that_nobody_has_is_left_out(self):
        assert "peak device memory" not in titles(compare(cell("sgd"), cell("adam")))

    def test_zero_is_a_figure(self):
        comparison = compare(cell("sgd", 0, 0.0, memory=MemoryRecord(optimizer_state_bytes=0)))
        assert row(comparison, "test accuracy") == ["0.000"]
        assert row(comparison, "optimizer state") == ["0 MB"]


class TestSeeds:
    def test_mean_and_spread(self):
        comparison = compare(cell("sgd", 0, 0.8), cell("sgd", 1, 0.9), cell("sgd", 2, 0.7))
        # t(0.975, 2) = 4.30265, times a standard deviation of 0.1, over the root of 3
        assert row(comparison, "test accuracy") == ["0.800 ± 0.248"]
        assert any("95%" in note and "3 seeds" in note for note in comparison.notes)

    def test_one_seed_has_no_spread(self):
        comparison = compare(cell("sgd", 0, 0.8))
        assert row(comparison, "test accuracy") == ["0.800"]
        assert not any("seeds" in note for note in comparison.notes)

    def test_only_seeds_that_are_done_count(self):
        comparison = compare(
            cell("sgd", 0, 0.8),
            cell("sgd", 1, 0.6),
            failed("sgd", "diverged", "the loss of step 3 is nan", seed=2),
            failed("adam", "oom", "too much", seed=0),
            cell("adam", 1, 0.5),
        )
        sgd, adam = row(comparison, "test accuracy")
        assert sgd.startswith("0.700 ±")
        assert sgd.endswith(" (2 of 3 seeds)")
        assert adam == "0.500 (1 of 2 seeds)"
        assert row(comparison, "steps") == ["0 (2 of 3 seeds)", "0 (1 of 2 seeds)"]
        (note,) = [note for note in comparison.notes if "t interval" in note]
        assert "over 2 to 3 seeds, or over the number given next to a figure" in note

    def test_every_seed_behind_a_figure_needs_no_count(self):
        comparison = compare(cell("sgd", 0, 0.8), cell("sgd", 1, 0.9))
        assert "of 2 seeds" not in " ".join(row(comparison, "test accuracy"))
        assert not any("as many as" in note for note in comparison.notes)

    def test_seeds_for_which_a_figure_is_undefined(self):
        precisions = (None, 0.5, 0.5, None, 0.5, 0.5)
        comparison = compare(
            *(
                cell("sgd", seed, 0.7, metrics={"precision": p, "recall": 0.5})
                for seed, p in enumerate(precisions)
            )
        )
        assert row(comparison, "precision") == ["0.500 (4 of 6 seeds)"]
        assert row(comparison, "recall") == ["0.500"]
        assert comparison.columns[0].figures["precision"].seeds == (1, 2, 4, 5)
        assert "sgd, seeds 0, 3: precision is undefined; its mean is over the other seeds" in comparison.notes

    def test_seeds_that_were_not_run_count(self):
        comparison = compare(cell("sgd", 0, 0.8), missing=["sgd"])
        assert row(comparison, "test accuracy") == ["0.800 (1 of 2 seeds)"]

    def test_as_many_seeds_that_are_others(self):
        comparison = compare(
            cell("sgd", 0, 0.8),
            cell("sgd", 1, 0.8),
            failed("sgd", "error", "broken", seed=2),
            failed("adam", "error", "broken", seed=0),
            cell("adam", 1, 0.8),
            cell("adam", 2, 0.8),
        )
        (note,) = [note for note in comparison.notes if "different seeds" in note]
        assert note.endswith(": sgd: seeds 0, 1; adam: seeds 1, 2")

    def test_as_many_seeds_that_are_others_for_one_figure(self):
        def precise(column, seed, precision):
            return cell(column, seed, metrics={"precision": precision, "recall": 0.5})

        comparison = compare(
            *(precise("sgd", seed, value) for seed, value in enumerate((0.5, 0.6, None))),
            *(precise("adam", seed, value) for seed, value in enumerate((None, 0.6, 0.5))),
        )
        (note,) = [note for note in comparison.notes if "different seeds" in note]
        assert note.startswith("precision: ")
        assert note.endswith(": sgd: seeds 0, 1; adam: seeds 1, 2")

    def test_the_same_seeds_need_no_warning(self):
        comparison = compare(*(cell(column, seed, 0.8) for column in ("sgd", "adam") for seed in (0, 1)))
        assert not any("different seeds" in note for note in comparison.notes)

    def test_sizes_take_no_spread(self):
        memories = (MemoryRecord(peak_host_bytes=400_000_000), MemoryRecord(peak_host_bytes=600_000_000))
        comparison = compare(*(cell("sgd", seed, memory=memory) for seed, memory in enumerate(memories)))
        assert row(comparison, "  resident as it ran") == ["500 MB"]


class TestReference:
    def reference(self, *records, **reference) -> FormattedTable:
        """The table of the earlier work's figures."""
        table = compare(*records, reference=reference).reference
        assert table is not None
        return table

    def test_has_a_table_of_its_own(self):
        table = self.reference(
            cell("sgd", accuracy=0.8),
            cell("adam", accuracy=0.9),
            adam={"test_accuracy": 0.903, "training_s": 577.27},
            sgd={"test_accuracy": 0.855, "auc": 0.865},
        )
        assert table.header == ("2021 report", "adam", "sgd")
        assert table.rows == (
            ("test accuracy", "0.903", "0.855"),
            ("AUC (from scores)", "-", "0.865"),
            ("training time", "9m 37s", "-"),
        )

    def test_leaves_our_table_alone(self):
        with_reference = compare(cell("sgd", accuracy=0.8), reference={"sgd": {"auc": 0.5}})
        assert with_reference.table == compare(cell("sgd", accuracy=0.8)).table

    def test_without_figures_that_we_know_there_is_no_table(self):
        assert compare(cell("sgd"), reference={"sgd": {"unheard_of": 0.5}}).reference is None
        assert compare(cell("sgd")).reference is None

    def test_note_is_shown(self):
        comparison = compare(cell("sgd"), reference={"sgd": {"auc": 0.5}}, reference_note="It ran on a GPU.")
        assert "It ran on a GPU." in comparison.notes

    def test_is_no_measurement_of_ours(self):
        comparison = compare(cell("sgd"), reference={"sgd": {"auc": 0.5}})
        assert "auc" not in comparison.columns[0].figures


class TestNotes:
    @pytest.mark.parametrize("status", ["oom", "diverged", "timeout", "error", "skipped"])
    def test_cells_without_figures(self, status):
        comparison = compare(
            cell("sgd", accuracy=0.8), failed("muon", status, "takes 2-D parameters", seed=3)
        )
        assert f"muon, seed 3: {status}: takes 2-D parameters" in comparison.conclusions
        assert row(comparison, "test accuracy") == ["0.800", "-"]
        assert not any("sgd" in note for note in comparison.notes)

    def test_cells_that_did_not_come_to_be(self):
        comparison = compare(cell("sgd", accuracy=0.8), missing=["adam"])
        assert comparison.table.header == ("", "sgd", "adam")
        assert row(comparison, "test accuracy") == ["0.800", "-"]
        assert "adam: 0 of 1 seeds were run" in comparison.notes

    def test_seeds_that_did_not_come_to_be(self):
        comparison = compare(cell("sgd", 0, 0.8), cell("adam", 0, 0.8), missing=["adam"])
        assert [note for note in comparison.notes if "were run" in note] == ["adam: 1 of 2 seeds were run"]

    def test_stand_in(self):
        comparison = compare(cell("sgd", dataset=STAND_IN), cell("adam", dataset=STAND_IN))
        (note,) = comparison.notes
        assert "synthetic-xray" in note
        assert "synthetic images" in note
        assert "say nothing about chest-xray" in note

    def test_another_real_dataset(self):
        comparison = compare(cell("sgd", dataset=REAL.model_copy(update={"name": "other"})))
        assert comparison.notes == (
            "STAND-IN DATA: other ran in place of chest-xray; these figures say nothing about chest-xray",
        )

    def test_nothing_to_note(self):
        assert compare(cell("sgd"), cell("adam")).notes == ()

    def test_different_devices(self):
        comparison = compare(
            cell("sgd", device={"name": "a GPU", "threads": 2}),
            cell("adam", device={"name": "a CPU", "threads": 4}),
        )
        why = "times (*) must not be ranked with the others, because they were measured on"
        assert comparison.notes == (
            f"sgd: {why} a GPU, and others on a CPU",
            f"adam: {why} a CPU, and others on a GPU",
        )

    def test_cells_that_failed_alike_are_named_together(self):
        comparison = compare(
            *(failed("sgd", "oom", "too much", seed=seed) for seed in range(5)),
            failed("adam", "oom", "too much", seed=1),
        )
        assert comparison.conclusions == ("sgd, seeds 0 to 4; adam, seed 1: oom: too much",)


class TestTimes:
    def timed(self, column, seed=0, malloc="fast", **fields):
        memory = MemoryRecord(malloc=malloc)
        return cell(column, seed, time=Times(training_s=2.0, step_ms_median=5.0), memory=memory, **fields)

    def test_those_that_are_not_ranked_are_marked(self):
        comparison = compare(self.timed("sgd"), self.timed("adam", malloc="exact"))
        assert row(comparison, "training time") == ["2.00 s", "2.00 s*"]
        assert row(comparison, "step, median") == ["5.0 ms", "5.0 ms*"]
        assert row(comparison, "malloc") == ["fast", "exact"]
        assert [bool(column.unranked_time) for column in comparison.columns] == [False, True]

    def test_a_mark_stands_before_the_number_of_seeds(self):
        comparison = compare(
            self.timed("sgd"), self.timed("adam", malloc="exact"), failed("adam", "error", "broken", seed=1)
        )
        assert row(comparison, "training time")[1] == "2.00 s* (1 of 2 seeds)"

    def test_alike_there_is_no_mark(self):
        comparison = compare(self.timed("sgd", malloc="exact"), self.timed("adam", malloc="exact"))
        assert row(comparison, "training time") == ["2.00 s", "2.00 s"]
        assert "malloc" not in titles(comparison)
        assert comparison.notes == ()


class TestCompiling:
    def compiled(self, column, **times):
        return cell(column, time=Times(training_s=2.0, compile_s=40.0, compiled_graphs=4, **times))

    def test_has_a_row_beside_the_training_time(self):
        comparison = compare(cell("eager"), self.compiled("compiled", untimed_graphs=0, late_compile_s=0.0))
        assert row(comparison, "compiling, beforehand") == ["-", "40.0 s"]
        assert comparison.notes == ()

    def test_that_took_place_in_training_or_that_nobody_timed_is_noted(self):
        comparison = compare(self.compiled("compiled", untimed_graphs=3, late_compile_s=5.0))
        assert comparison.notes == (
            "compiled, seed 0: 3 of 4 graphs were cached without the time that compiling them took, which is "
            "therefore not included",
            "compiled, seed 0: was compiled again during training or evaluation, for 5.00 s, which its times "
            "include",
        )


class TestFeatures:
    def featured(self, column, seed=0, features_s=None, weights="a hash", **fields):
        return cell(
            column,
            seed,
            model=Component(name="vgg16", weights=weights),
            features=FeaturesRecord(precision="float32", shape=[6]),
            time=Times(training_s=2.0, features_s=features_s),
            **fields,
        )

    def test_each_column_that_used_them_shows_their_cost(self):
        comparison = compare(self.featured("sgd", features_s=10.0), self.featured("adam"), cell("plain"))
        assert row(comparison, "computing features") == ["10.0 s", "10.0 s", "-"]
        assert any(note.startswith("computing features: done once and shared") for note in comparison.notes)

    def test_an_earlier_run_computed_them(self):
        comparison = compare(self.featured("sgd"), self.featured("adam"))
        assert row(comparison, "computing features") == ["cached", "cached"]
        assert "cached" in comparison.notes[-1]

    def test_no_one_used_any(self):
        assert "computing features" not in titles(compare(cell("sgd"), cell("adam")))

    def test_records_keep_who_computed_them(self):
        comparison = compare(self.featured("sgd", features_s=10.0), self.featured("adam"))
        assert [c.records[0].time.features_s for c in comparison.columns] == [10.0, None]

    def test_a_cell_that_went_on_on_another_processor(self):
        moved = cell("sgd", resumed_at=[5], processors=["an old CPU", "a new CPU"])
        stayed = cell("adam", resumed_at=[5], processors=["a new CPU"])
        told, plain = "ran on an old CPU, then a new CPU", "sgd, seed 0; adam, seed 0: resumed from"
        notes = compare(moved, stayed).notes
        assert [note for note in notes if told in note] == [notes[1]]
        assert notes[1].startswith("sgd, seed 0: ")
        assert notes[0].startswith(plain)


class TestExperiments:
    def test_each_is_a_table_of_its_own_cells(self):
        records = [cell("sgd", accuracy=0.7), cell("sgd", accuracy=0.9, experiment="second")]
        planned = run(
            records,
            ExperimentRecord(name="first", title="First"),
            ExperimentRecord(name="second", title="Second"),
        )
        first, second = comparisons(planned, records)
        assert (first.experiment.title, second.experiment.title) == ("First", "Second")
        assert row(first, "test accuracy") == ["0.700"]
        assert row(second, "test accuracy") == ["0.900"]

    def test_two_may_share_a_cell(self):
        shared = cell("sgd", accuracy=0.7)
        planned = run(
            [shared, shared.model_copy(update={"experiment": "second"})],
            ExperimentRecord(name="first", title="First"),
            ExperimentRecord(name="second", title="Second"),
        )
        for comparison in comparisons(planned, [shared]):
            assert row(comparison, "test accuracy") == ["0.700"]
