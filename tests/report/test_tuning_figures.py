"""The figures of a search show every trial, and nothing that it has not found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.report.report_samples import STAND_IN, cell, run
from tests.report.tuning_samples import (
    ADAM_SCORES,
    RATES,
    adam_trials,
    search,
    sgd_trials,
    trials,
    tuned_records,
    tuned_run,
)
from xbench.records.schema import CellRecord
from xbench.records.tuning import RangeRecord
from xbench.report.comparison import comparisons
from xbench.report.draw import draw_figure
from xbench.report.figure import Figure, Series
from xbench.report.figure_data import make_figures
from xbench.report.plots import to_plotly


def figures_of(records: Sequence[CellRecord], **fields) -> dict[str, Figure]:
    """The figures of the search, by key."""
    declared = tuned_run(records, search(**fields))
    made = make_figures(declared, records, {}, comparisons(declared, list(records)))
    return {figure.key: figure for figure in made if figure.key.startswith("tuning")}


def series_of(figure: Figure, name: str) -> Series:
    return next(series for series in figure.series if series.name == name)


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return figures_of(tuned_records())


def test_which_there_are(figures):
    assert list(figures) == ["tuning-best", "tuning-by-lr", "tuning-by-weight-decay"]


def test_none_without_a_search():
    records = [cell("sgd", 0, 0.8)]
    declared = run(records)
    made = make_figures(declared, records, {}, comparisons(declared, records))
    assert not [figure for figure in made if figure.key.startswith("tuning")]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("grid", "The trials are the points of a grid, not random ones"),
        ("quasi-random", "The trials are spread more evenly than random ones"),
        ("tpe", "in the order of the trials"),
    ],
)
def test_the_note_says_what_the_trials_of_each_search_are(method, words):
    figures = {name: figures_of(tuned_records(), search=name) for name in ("grid", "quasi-random", "tpe")}
    assert [name for name, made in figures.items() if words in made["tuning-best"].note] == [method]


def test_none_if_no_trial_has_succeeded():
    assert figures_of(trials("sgd", (None, None))) == {}


def test_stand_in_data_is_told_even_before_other_cells_have_run():
    records = [record.model_copy(update={"dataset": STAND_IN}) for record in sgd_trials()]
    assert "synthetic images" in figures_of(records)["tuning-best"].warning


class TestBest:
    def test_lines_with_bands_for_each_optimizer(self, figures):
        figure = figures["tuning-best"]
        assert (figure.x_label, figure.is_x_whole) == ("trials (k)", True)
        assert figure.y_label == "validation loss, lower is better"
        sgd, adam = figure.series
        assert sgd.x == (1, 2, 3, 4, 5, 6, 7, 8)
        assert sgd.y[-1] == 0.29
        assert adam.x == (3, 4, 5, 6, 7, 8)
        assert all(low <= y <= high for low, y, high in zip(adam.low, adam.y, adam.high, strict=True))
        assert "without replacement" in figure.note
        assert "spread more evenly" in figure.note

    def test_that_of_tpe_is_in_order_and_has_no_bands(self):
        figure = figures_of(sgd_trials(), search="tpe")["tuning-best"]
        assert figure.title == "Validation loss: best so far, in the order of the trials"
        (sgd,) = figure.series
        assert (sgd.low, sgd.high) == ((), ())
        assert "no bands" in figure.note

    def test_an_optimizer_without_a_score_is_named(self):
        figure = figures_of([*sgd_trials(), *trials("adam", (None, None))])["tuning-best"]
        assert [series.name for series in figure.series] == ["sgd"]
        assert "no trial succeeded: adam" in figure.note

    def test_equal_numbers_of_trials_may_have_different_prices(self):
        note = "same budget of gradient evaluations"
        assert note in figures_of(sgd_trials(), budget_unit="closures")["tuning-best"].note
        assert note not in figures_of(sgd_trials())["tuning-best"].note


class TestSettings:
    def test_a_point_for_each_trial_that_succeeded(self, figures):
        figure = figures["tuning-by-lr"]
        assert (figure.is_x_log, figure.title) == (True, "Validation loss of each trial against lr")
        adam = series_of(figure, "adam")
        assert adam.x == RATES[:6]
        assert adam.y == ADAM_SCORES[:6]
        assert adam.labels[0] == "trial 1"
        assert adam.place == 1

    def test_failed_trials_are_crosses_at_the_worse_edge(self, figures):
        crosses = series_of(figures["tuning-by-lr"], "adam, failed")
        assert (crosses.mark, crosses.x, crosses.place) == ("cross", RATES[6:], 1)
        assert crosses.labels == ("trial 7: diverged", "trial 8: oom")
        assert all(0.8 < y < 1 for y in crosses.y)  # a high loss is worse
        higher = figures_of([*adam_trials()], direction="max")["tuning-by-lr"]
        assert all(0 < y < 0.2 for y in series_of(higher, "adam, failed").y)
        assert "lower edge" in higher.note

    def test_crosses_of_optimizers_with_the_same_settings_are_apart(self):
        records = [*trials("sgd", (0.5, None)), *trials("adam", (0.5, None))]
        crosses = [series for series in figures_of(records)["tuning-by-lr"].series if series.mark == "cross"]
        assert crosses[0].x == crosses[1].x
        assert abs(crosses[0].y[0] - crosses[1].y[0]) > 0.02

    def test_chosen_trials_have_rings(self, figures):
        ring = series_of(figures["tuning-by-lr"], "chosen")
        assert (ring.mark, ring.x, ring.y) == ("ring", (RATES[7], RATES[2]), (0.29, 0.27))
        assert ring.labels == ("sgd, trial 8", "adam, trial 3")

    def test_rings_before_a_cell_has_run(self):
        figure = figures_of(sgd_trials()[:3])["tuning-by-lr"]
        assert [series.name for series in figure.series if series.mark == "ring"] == ["best so far"]

    def test_optimizers_without_a_setting_are_absent(self, figures):
        assert [series.name for series in figures["tuning-by-weight-decay"].series] == [
            "adam",
            "chosen",
            "adam, failed",
        ]

    def test_settings_that_are_no_numbers_or_do_not_vary_have_no_figure(self):
        records = trials(
            "sgd", (0.5, 0.4), momentum=(0.9, 0.9), kind=("a", "b"), betas=([0.9, 0.99], [0.9, 0.999])
        )
        assert list(figures_of(records)) == ["tuning-best", "tuning-by-lr"]

    def test_zero_has_no_place_on_a_logarithmic_axis(self):
        spaces = {"sgd": {"lr": RangeRecord(low=0.0001, high=0.1, scale="log")}}
        records = trials("sgd", (0.5, 0.4), lr=(0.0, 0.1))
        assert not figures_of(records, spaces=spaces)["tuning-by-lr"].is_x_log

    def test_the_setting_of_a_nested_optimizer(self):
        records = trials("sgd", (0.5, 0.4), **{"rest.lr": (0.1, 0.2)})
        figure = figures_of(records)["tuning-by-rest-lr"]
        assert figure.x_label == "rest.lr"


class TestDrawn:
    @pytest.mark.parametrize("key", ["tuning-best", "tuning-by-lr", "tuning-by-weight-decay"])
    def test_files(self, figures, key):
        files = draw_figure(figures[key])
        with Image.open(io.BytesIO(files["png"])) as picture:
            assert picture.width > 900
        texts = [
            "".join(t.itertext()).strip()
            for t in ElementTree.fromstring(files["svg"]).iter("{http://www.w3.org/2000/svg}text")
        ]
        assert {"adam", figures[key].title} <= set(texts)
        if key != "tuning-best":
            assert {"chosen", "adam, failed"} <= set(texts)

    def test_the_legend_has_the_order_of_the_table(self, figures):
        from xbench.report.draw import _make_canvas, _matplotlib

        with _matplotlib():
            (axes,) = _make_canvas(figures["tuning-by-lr"]).axes
            texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts == ["sgd", "adam", "chosen", "adam, failed"]

    def test_points_stay_clear_of_the_crosses(self, figures):
        from xbench.report.draw import _make_canvas, _matplotlib

        figure = figures["tuning-by-lr"]
        with _matplotlib():
            (axes,) = _make_canvas(figure).axes
            low, high = axes.get_ylim()
        worst = max(y for series in figure.series if series.mark == "dot" for y in series.y)
        lowest_cross = min(y for series in figure.series if series.mark == "cross" for y in series.y)
        assert (worst - low) / (high - low) < lowest_cross - 0.03

    def test_ticks_of_trials_are_whole(self, figures):
        from xbench.report.draw import _make_canvas, _matplotlib

        with _matplotlib():
            (axes,) = _make_canvas(figures_of(sgd_trials()[:3])["tuning-best"]).axes
            assert all(tick == round(tick) for tick in axes.get_xticks())
        assert to_plotly(figures["tuning-best"])["layout"]["xaxis"]["dtick"] == 1

    def test_the_interactive_plot_has_an_axis_for_crosses(self, figures):
        plot = to_plotly(figures["tuning-by-lr"])
        cross = next(trace for trace in plot["data"] if trace["name"] == "adam, failed")
        assert (cross["yaxis"], cross["text"]) == ("y2", ["trial 7: diverged", "trial 8: oom"])
        assert plot["layout"]["yaxis2"]["range"] == [0, 1]
        low, high = plot["layout"]["yaxis"]["range"]
        assert low < 0.27 and high > 0.66
        assert not any("text" in trace["mode"] for trace in plot["data"])

    def test_a_plot_without_crosses_has_one_axis(self):
        layout = to_plotly(figures_of(sgd_trials())["tuning-by-lr"])["layout"]
        assert "yaxis2" not in layout and "range" not in layout["yaxis"]

    def test_pages_keep_the_ranges_of_axes_as_lists(self, figures):
        from xbench.report.page import _Content

        content = _Content()
        content.add_figure(figures["tuning-by-lr"])
        assert content.figures[0]["layout"]["yaxis2"]["range"] == [0, 1]
