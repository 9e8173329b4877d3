"""A comparison of what optimizers make of the same memory."""

from __future__ import annotations

import pytest

from tests.report.report_samples import cell, memory_pass, run
from xbench.records.memory import MemoryRecord
from xbench.records.schema import EqualRecord, ExperimentRecord, PairingRecord
from xbench.records.tuning import SearchRecord
from xbench.report.comparison import comparisons
from xbench.report.draw import draw_figure
from xbench.report.figure_data import make_figures
from xbench.report.plots import to_plotly

MB = 10**6
LIMIT = 600 * MB


def found(
    column: str, seed: int = 0, accuracy: float = 0.8, peak: int = 590, weights="w", limit=LIMIT, **ran
):
    """A cell with the largest of a size."""
    (size,) = ran
    return cell(
        column,
        seed,
        accuracy,
        requested={size: "largest"},
        ran={"train_size": 1400, "batch_size": 5, "micro_batch": 5, **ran},
        fitted={size: f"the largest that fits 600 MB ({ran[size] + 1} does not)"},
        memory=MemoryRecord(limit_bytes=limit),
        memory_pass=memory_pass(activations=peak),
        pairing=PairingRecord(weights_sha256=weights, order_sha256="o"),
        closures=40,
    )


def compare(*records, along, **fields):
    equal = EqualRecord(limit_bytes=LIMIT, along=along)
    experiment = ExperimentRecord(name="first", title="First", equal=equal, **fields)
    planned = run(records, experiment)
    (comparison,) = comparisons(planned, list(records))
    return planned, comparison


BATCHES = {"sgd": "batch_size", "adam": "batch_size"}


@pytest.fixture
def batches():
    return compare(
        found("sgd", accuracy=0.7, peak=594, batch_size=40),
        found("adam", accuracy=0.9, peak=596, batch_size=36),
        along=BATCHES,
    )


def rows(comparison):
    return {cells[0]: list(cells[1:]) for cells in comparison.table.rows}


class TestTable:
    def test_a_line_above_it_says_what_is_equal(self, batches):
        assert batches[1].data[-1] == "equal memory: 600 MB; the largest batch size that fits"

    def test_several_settings_are_told_with_their_columns(self):
        _, comparison = compare(
            found("adam", batch_size=36),
            found("lbfgs", history_size=12),
            along={"adam": "batch_size", "lbfgs": "history_size"},
        )
        assert comparison.data[-1] == (
            "equal memory: 600 MB; the largest size that fits: batch size (adam), history size (lbfgs)"
        )

    def test_what_was_found_is_a_row(self, batches):
        assert rows(batches[1])["batch"] == ["40", "36"]

    def test_so_is_a_setting_of_the_model(self):
        _, comparison = compare(
            found("sgd", width=96), found("adam", width=64), along=dict.fromkeys(("sgd", "adam"), "width")
        )
        assert rows(comparison)["width"] == ["96", "64"]
        assert (
            "sgd: width largest ran as 96: the largest that fits 600 MB (97 does not)"
            in comparison.conclusions
        )

    def test_metrics_are_ranked_and_memory_is_not(self, batches):
        shown = rows(batches[1])
        assert shown["test accuracy"] == ["0.700", "0.900 ★"]
        assert shown["peak memory"] == ["594 MB", "596 MB"]
        assert not any("peak memory" in line for line in batches[1].conclusions)


class TestLimitsThatDiffer:
    """A limit in percent is another one if the run is resumed with more or less memory."""

    def compare(self, *limits):
        columns = [("sgd", 0.7), ("adam", 0.9)]
        return compare(
            *(
                found(name, seed, accuracy, batch_size=40, limit=limit)
                for (name, accuracy), limit in zip(columns, limits, strict=True)
                for seed in range(3)
            ),
            along=BATCHES,
        )

    def test_are_told_above_the_table_and_below_it(self):
        _, comparison = self.compare(LIMIT, 500 * MB)
        assert comparison.data[-1] == "unequal memory: 500 MB to 600 MB; the largest batch size that fits"
        (note,) = [note for note in comparison.notes if "nothing is ranked" in note]
        assert note.startswith("the memory limit changed between the cells (sgd: 600 MB; adam: 500 MB), so")
        assert "--fresh" in note

    def test_nothing_is_ranked(self):
        _, comparison = self.compare(LIMIT, 500 * MB)
        assert rows(comparison)["test accuracy"] == ["0.700", "0.900"]
        assert comparison.findings == ()

    def test_the_figure_has_no_line(self):
        planned, comparison = self.compare(LIMIT, 500 * MB)
        records = [record for column in comparison.columns for record in column.records]
        figures = {figure.key: figure for figure in make_figures(planned, records, {}, [comparison])}
        assert figures["metric-memory"].x_limit is None
        assert "same limit" not in figures["metric-memory"].note

    def test_within_a_column_too(self):
        _, comparison = compare(
            found("sgd", 0, batch_size=40), found("sgd", 1, batch_size=30, limit=500 * MB), along=BATCHES
        )
        assert any("(sgd: 500 MB to 600 MB)" in note for note in comparison.notes)

    def test_less_than_a_percent_is_none(self):
        _, comparison = self.compare(LIMIT, LIMIT - 5 * MB)
        assert comparison.data[-1] == "equal memory: 595 MB to 600 MB; the largest batch size that fits"
        assert "★" in rows(comparison)["test accuracy"][1]

    def test_the_limit_is_that_of_the_cells(self):
        """The run's is that of the last command, which may have found all cells done."""
        _, comparison = self.compare(500 * MB, 500 * MB)
        assert comparison.data[-1] == "equal memory: 500 MB; the largest batch size that fits"
        assert "★" in rows(comparison)["test accuracy"][1]


class TestNotes:
    def test_learning_rates_do_not_follow_batches(self, batches):
        assert (
            "a larger batch takes fewer steps in an epoch, and learning rates do not follow it"
            in batches[1].notes
        )

    def test_unless_they_were_searched_for_them(self):
        search = SearchRecord(search="grid", budget=2, metric="validation_loss", direction="min", seed=9)
        _, comparison = compare(found("sgd", batch_size=40), along={"sgd": "batch_size"}, tuning=search)
        assert "a larger batch takes fewer steps in an epoch" in comparison.notes

    def test_cells_of_other_widths_are_not_paired(self):
        along = dict.fromkeys(("sgd", "adam"), "width")
        _, comparison = compare(
            found("sgd", width=96, weights="a"), found("adam", width=64, weights="b"), along=along
        )
        (note,) = [note for note in comparison.notes if "do not share" in note]
        assert "their initial weights (seed 0)" in note
        _, same = compare(found("sgd", width=64), found("adam", width=64), along=along)
        assert not any("do not share" in note for note in same.notes)

    def test_a_history_that_was_never_full_is_told(self):
        along = {"lbfgs": "history_size"}
        _, comparison = compare(found("lbfgs", history_size=41), along=along)
        assert any("40 closures cannot fill a history of 41" in note for note in comparison.notes)
        _, filled = compare(found("lbfgs", history_size=40), along=along)
        assert not any("cannot fill" in note for note in filled.notes)


class TestFigure:
    @pytest.fixture
    def figures(self, batches):
        planned, comparison = batches
        records = [record for column in comparison.columns for record in column.records]
        return {figure.key: figure for figure in make_figures(planned, records, {}, [comparison])}

    def test_the_limit_is_a_line_and_names_have_the_sizes(self, figures):
        figure = figures["metric-memory"]
        assert figure.x_limit == (600.0, "limit: 600 MB")
        assert [series.name for series in figure.series] == ["sgd (batch size 40)", "adam (batch size 36)"]
        assert (figure.front.x, figure.front.y) == ((594.0, 596.0), (0.7, 0.9))

    def test_other_experiments_have_no_line(self):
        records = [found("sgd", batch_size=40)]
        planned = run(records)
        (figure,) = [
            figure
            for figure in make_figures(planned, records, {}, comparisons(planned, records))
            if figure.key == "metric-memory"
        ]
        assert figure.x_limit is None

    def test_it_is_drawn(self, figures):
        drawn = draw_figure(figures["metric-memory"])
        assert b"limit: 600 MB" in drawn["svg"]
        plot = to_plotly(figures["metric-memory"])
        (line,) = plot["layout"]["shapes"]
        assert (line["xref"], line["x0"], line["x1"]) == ("x", 600.0, 600.0)
        (label,) = plot["layout"]["annotations"]
        assert (label["text"], label["x"]) == ("limit: 600 MB", 600.0)
