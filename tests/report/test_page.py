"""The HTML page of runs, read as text."""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
import re
from array import array
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.report.page_samples import FIGURES, large_page, page, trace, varied_page
from tests.report.report_samples import REAL, cell, failed, measured, run
from xbench.records.schema import Component, DataRecord, MetricRecord
from xbench.records.store import RunFolder
from xbench.report.figure import Figure, Series
from xbench.report.page import MAX_LOG_BYTES, make_page, make_run_page, read_log_tails
from xbench.report.page_tables import make_comparison_table
from xbench.report.plots import COLOURS, to_plotly
from xbench.report.thin_traces import MAX_LINE_POINTS, thin_lines, thin_trace

SCRIPT_END = "</script><img src=x onerror=alert(1)>"
JINJA = "{{ 7 * 7 }}{% raw %}"
HOSTILE = f"{SCRIPT_END}\"'&{JINJA}\x1b[31m\u202e"


class Elements(HTMLParser):
    """The elements of a page, its text without scripts, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[0])

    def described(self, cell_id: str) -> dict[str, dict[str, str]]:
        """The groups of a cell of the first run."""
        groups = self.data["groups"]
        return {groups[i][0]: dict(groups[i][1]) for i in self.data["cells"][f"cell-1-{cell_id}"]["groups"]}


def read_page(*runs) -> Elements:
    return Elements(make_page(runs))


def zip_series(series: Series):
    return zip(series.x, series.y, series.low, series.high, strict=True)


def unpack(packed: dict[str, str]) -> list[float]:
    return list(array("f", base64.b64decode(packed["bdata"])))


@pytest.fixture(scope="module")
def varied() -> Elements:
    return read_page(varied_page())


@pytest.fixture(scope="module")
def hostile() -> Elements:
    data = DataRecord(
        requested=HOSTILE,
        name=HOSTILE + "2",
        counts={f"test/{HOSTILE}": 3},
        notes=[HOSTILE],
        licence=HOSTILE,
    )
    record = failed(
        HOSTILE,
        "error",
        HOSTILE,
        dataset=data,
        settings={HOSTILE: HOSTILE},
        model=Component(name=HOSTILE),
    )
    declared = run(
        [record], suite=HOSTILE, warnings=[HOSTILE], versions={HOSTILE: HOSTILE}, changes=[HOSTILE]
    )
    figure = Figure(
        "key",
        "first",
        HOSTILE,
        "lines",
        HOSTILE,
        HOSTILE,
        (Series(HOSTILE, (HOSTILE,), (1.0,)),),
        note=HOSTILE,
    )
    return read_page(page([record], [figure], declared, logs={record.cell_id: HOSTILE}))


class TestContents:
    def test_findings_tables_notes_and_earlier_figures_are_text(self, varied):
        for text in (
            "First",
            "higher than sgd (one seed: no claim)",
            "a warning of the run",
            "2021 report",
            "0.777",
        ):
            assert text in varied.text
        for note in varied_page().comparisons[0].notes:
            assert note in varied.text

    def test_stand_in_data_is_loud(self, varied):
        loud = "STAND-IN DATA: synthetic-xray (synthetic images) ran in place of chest-xray;"
        assert loud in varied.text
        assert ("p", {"class": "stand-in"}) in varied.tags

    def test_every_declared_cell_has_a_row_with_its_status(self, varied):
        classes = [attrs.get("class") or "" for tag, attrs in varied.tags if tag == "span"]
        statuses = [name for name in classes if name.startswith("status ")]
        assert statuses == ["status done", "status done", "status oom", "status not-ended"]
        assert "memory ran out" in varied.text

    def test_details_of_cells_are_data(self, varied):
        records = varied_page().records
        groups = varied.described(records[0].cell_id)
        assert groups["Times"]["training"] == "2m 05s"
        assert groups["Sizes"]["train size"] == "1,400"
        assert groups["Memory pass"]["peak"] == "500 MB"
        assert varied.described(records[2].cell_id)["Outcome"]["reason"] == "memory ran out"
        assert varied.data["cells"][f"cell-1-{records[2].cell_id}"]["log"] == "Traceback\n\tlast line"

    def test_tables_have_captions_and_scopes(self, varied):
        tags = [tag for tag, _ in varied.tags]
        assert tags.count("caption") == tags.count("table") > 3
        assert all("scope" in attrs for tag, attrs in varied.tags if tag == "th")
        assert {"main", "nav", "header", "footer", "article"} <= set(tags)

    def test_ids_are_unique_and_links_lead_to_them(self):
        tags = read_page(varied_page(), varied_page()).tags
        ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        assert {attrs["href"].removeprefix("#") for tag, attrs in tags if tag == "a"} <= set(ids)

    def test_data_has_counts_citation_and_licence(self):
        data = REAL.model_copy(update={"licence": "Tiny Licence", "citation": "Tiny, T. (2026)"})
        text = read_page(page([cell("sgd", dataset=data)])).text
        assert all(part in text for part in ("1,110", "Tiny Licence", "Tiny, T. (2026)"))

    def test_a_changed_size_has_its_request_and_its_reason(self):
        record = cell(
            "sgd", requested={"batch_size": 64}, ran={"batch_size": 32}, fitted={"batch_size": "too large"}
        )
        assert read_page(page([record])).described(record.cell_id)["Sizes"] == {
            "batch size": "32 (requested: 64): too large"
        }

    def test_equal_groups_are_stored_once(self):
        records = [cell("sgd", seed, settings={"epochs": 3}) for seed in range(5)]
        titles = [title for title, _ in read_page(page(records)).data["groups"]]
        assert titles.count("Settings") == 1

    @pytest.mark.parametrize("count", [2, 8], ids=["ordinary", "turned"])
    def test_figures_and_settings_have_the_values_that_they_are_sorted_by(self, count):
        records = [
            cell(
                f"optimizer-{number}",
                accuracy=0.5 + number / 100,
                settings={"rate": 10.0**-number, "scaling": bool(number), "weights": {"a": number}},
                ran={"batch_size": 1000 + number},
            )
            for number in range(count)
        ]
        tags = read_page(page(records)).tags
        values = {attrs["data-value"] for tag, attrs in tags if tag == "td" and "data-value" in attrs}
        for number in range(count):
            assert {str(0.5 + number / 100), str(10.0**-number), str(1000 + number)} <= values
        table = make_comparison_table(page(records).comparisons[0])
        shown = [[cell.value for cell in cells] for _, cells in table.rows]
        columns = shown if table.has_figures_as_rows else [*zip(*shown, strict=True)]
        without = [column for column in columns if all(value is None for value in column)]
        assert len(without) == 2  # yes or no, and weights, are sorted by their text

    def test_a_setting_with_several_values_is_sorted_by_the_smallest(self):
        records = [cell("sgd", seed, settings={"rate": rate}) for seed, rate in enumerate((0.3, 0.1, 0.2))]
        table = make_comparison_table(page(records).comparisons[0])
        (found,) = next(cells for title, cells in table.rows if title == "rate")
        assert (found.value, found.text.count("seed")) == (0.1, 3)

    def test_values_belong_to_keys_where_titles_are_the_same(self):
        metrics = [
            MetricRecord(name=name, title="score", direction="max", split="test") for name in ("one", "two")
        ]
        record = cell("sgd", metrics={"one": 0.25, "two": 0.75})
        table = make_comparison_table(page([record], declared=run([record], metrics=metrics)).comparisons[0])
        assert [cells[0].value for title, cells in table.rows if title == "score"] == [0.25, 0.75]

    def test_a_run_without_records_has_a_page(self):
        empty = run([], missing=[("first", "sgd")])
        assert "not ended" in read_page(page([], declared=empty)).text


class TestHostileText:
    def test_makes_no_element_and_no_script(self, hostile):
        assert not any(tag == "img" or "onerror" in attrs for tag, attrs in hostile.tags)
        assert len(hostile.scripts) == 3

    def test_is_shown_literally(self, hostile):
        assert hostile.text.count(f"{SCRIPT_END}\"'&{JINJA}\\x1b[31m\\u202e") > 8
        assert "49" not in hostile.text.replace(JINJA, "")

    def test_stays_text_in_the_data(self, hostile):
        assert "<" not in hostile.scripts[0]
        (found,) = hostile.data["cells"].values()
        assert found["log"].startswith(SCRIPT_END)

    def test_is_not_the_small_html_of_plotly(self, hostile):
        (figure,) = hostile.data["figures"]
        assert figure["data"][0]["name"].startswith("&lt;/script&gt;&lt;img")
        assert "<" not in json.dumps(figure["layout"])

    def test_only_the_scripts_of_the_page_may_run(self, hostile):
        (policy,) = (attrs["content"] for _, attrs in hostile.tags if "http-equiv" in attrs)
        assert "default-src 'none'" in policy
        assert len(re.findall(r"'sha256-[^']{44}'", policy)) == 2
        assert "script-src 'unsafe-inline'" not in policy and "unsafe-eval" not in policy


class TestSize:
    def test_a_thousand_cells_take_less_than_6_mb(self):
        assert len(make_page([large_page()]).encode()) < 6_000_000

    def test_plotly_is_embedded_once(self):
        scripts = read_page(varied_page(), varied_page()).scripts
        (packed,) = (script for script in scripts if len(script) > 1_000_000)
        assert "plotly.js v" in gzip.decompress(base64.b64decode(packed)).decode()[:1000]

    def test_long_lines_show_some_of_their_points(self):
        count = 1050
        ys = tuple(1 / step for step in range(1, count + 1))
        line = Series(
            "sgd", tuple(range(1, count + 1)), ys, tuple(y / 2 for y in ys), tuple(2 * y for y in ys)
        )
        figure = replace(FIGURES[0], series=(line, FIGURES[0].series[1]), note="Mean of seeds.")
        thinned = thin_lines(figure)
        long, short = thinned.series
        assert len(long.x) == len(long.low) == MAX_LINE_POINTS and long.x[-1] == count
        assert all((y, low, high) == (1 / x, 0.5 / x, 2 / x) for x, y, low, high in zip_series(long))
        assert short == figure.series[1]
        text = read_page(page([cell("sgd")], [figure])).text
        assert "Mean of seeds. Longer lines show 200 of their points here" in text

    def test_short_lines_and_other_figures_are_whole(self):
        assert all(thin_lines(figure) is figure for figure in FIGURES)


class TestTraces:
    def test_a_long_trace_is_thinned(self):
        thinned = thin_trace(trace(250))
        assert len(thinned.steps) == 100 and thinned.steps[-1] == 250
        assert thinned.stretch == 3
        assert thinned.peak_bytes[:2] == (2_000_000, 5_000_000)
        assert math.isclose(thinned.losses[0], (1 + 1 / 2) / 2)

    def test_a_short_trace_is_kept(self):
        assert thin_trace(trace(3)).steps == (1, 2, 3)

    def test_a_loss_that_is_not_finite_stays_so(self):
        rows = trace(200)
        rows[0] = type(rows[0])(1, 1, math.inf, 0.01, 1, 1, None, None)
        assert math.isnan(thin_trace(rows).losses[0])

    def test_steps_are_stored_only_where_some_are_missing(self):
        whole, gapped = cell("sgd"), cell("adam")
        traces = {whole.cell_id: thin_trace(trace(250)), gapped.cell_id: thin_trace(trace(9)[2:])}
        cells = read_page(page([whole, gapped], traces=traces)).data["cells"]
        assert cells[f"cell-1-{whole.cell_id}"]["trace"]["steps"] == 250
        assert unpack(cells[f"cell-1-{gapped.cell_id}"]["trace"]["steps"]) == [3, 4, 5, 6, 7, 8, 9]
        assert unpack(cells[f"cell-1-{gapped.cell_id}"]["trace"]["mb"]) == [3, 4, 5, 6, 7, 8, 9]


class TestFiles:
    def test_ends_of_logs_are_read_for_cells_that_failed(self, tmp_path):
        folder = RunFolder(tmp_path)
        (tmp_path / "logs").mkdir()
        done, broken, silent = cell("sgd"), failed("adam", "error", "x"), failed("muon", "error", "x")
        for record in (done, broken):
            folder.log_path(record.cell_id).write_bytes(b"\xff" + b"a" * 5000 + b"end")
        tails = read_log_tails(folder, [done, broken, silent])
        assert list(tails) == [broken.cell_id]
        assert tails[broken.cell_id].endswith("aend") and len(tails[broken.cell_id]) == MAX_LOG_BYTES

    def test_only_logs_inside_the_run_are_read(self, tmp_path):
        """A run may be somebody else's: its log could be a link to any file of the reader, or a pipe."""
        (tmp_path / "secret").write_text("private key")
        folder = RunFolder(tmp_path / "run")
        (folder.path / "logs").mkdir(parents=True)
        records = {name: failed(name, "error", "x") for name in ("out", "inside", "gone", "pipe", "loop")}
        paths = {name: folder.log_path(record.cell_id) for name, record in records.items()}
        paths["out"].symlink_to(tmp_path / "secret")
        (folder.path / "logs" / "kept").write_text("a traceback")
        paths["inside"].symlink_to("kept")
        paths["gone"].symlink_to("nothing")
        paths["loop"].symlink_to(paths["loop"].name)
        os.mkfifo(paths["pipe"])
        tails = read_log_tails(folder, list(records.values()))
        found = {name: tails.get(record.cell_id, "") for name, record in records.items()}
        assert found["inside"] == "a traceback"
        assert found["gone"] == ""
        assert all(found[name].startswith("the log cannot be read: ") for name in ("out", "pipe", "loop"))

    def test_a_run_that_is_reached_through_a_link_has_its_logs(self, tmp_path):
        (tmp_path / "run" / "logs").mkdir(parents=True)
        (tmp_path / "link").symlink_to("run")
        folder, record = RunFolder(tmp_path / "link"), failed("adam", "error", "x")
        folder.log_path(record.cell_id).write_text("a traceback")
        assert read_log_tails(folder, [record]) == {record.cell_id: "a traceback"}

    def test_the_page_of_a_folder_has_its_traces(self, tmp_path):
        folder, whole, broken = RunFolder(tmp_path), measured("sgd"), measured("adam")
        (tmp_path / "traces").mkdir()
        records = [
            record.model_copy(update={"trace_crc32": folder.write_trace(record.cell_id, trace(5))})
            for record in (whole, broken)
        ]
        folder.trace_path(broken.cell_id).write_bytes(b"not a table")
        made = make_run_page(folder, "here", run(records), records, [])
        assert made.traces[whole.cell_id].steps == (1, 2, 3, 4, 5) and len(made.traces) == 1
        html = make_page([made])
        assert html.startswith("<!doctype html>")
        assert "the trace cannot be read" in Elements(html).data["cells"][f"cell-1-{broken.cell_id}"]["note"]


class TestPlots:
    def test_axes_have_units_and_scales(self):
        layout = to_plotly(FIGURES[0])["layout"]
        assert layout["yaxis"]["title"]["text"] == "loss (nats)"
        assert (layout["xaxis"]["type"], layout["yaxis"]["type"]) == ("linear", "log")
        assert layout["title"]["text"] == "Loss by steps"

    def test_the_warning_is_drawn(self):
        (warning,) = to_plotly(FIGURES[0])["layout"]["annotations"]
        assert "STAND-IN DATA" in warning["text"]

    def test_a_band_is_drawn_behind_its_line(self):
        band, line, other = to_plotly(FIGURES[0])["data"]
        assert band["x"] == [1, 2, 3, 3, 2, 1] and band["y"][3:] == [0.2, 0.6, 1.0]
        assert min(band["y"]) > 0  # the axis is logarithmic
        assert (line["name"], other["name"], other["y"]) == ("sgd", "adam", [0.8, None, 0.2])

    def test_layers_are_stacked_below_a_limit(self):
        plot = to_plotly(FIGURES[1])
        assert [layer["type"] for layer in plot["data"]] == ["bar", "bar"]
        assert plot["layout"]["barmode"] == "stack" and plot["layout"]["xaxis"]["type"] == "category"
        assert plot["layout"]["shapes"][0]["y0"] == 40
        assert plot["layout"]["annotations"][0]["text"] == "limit"

    def test_points_have_error_bars_labels_and_a_front(self):
        first, _, front = to_plotly(FIGURES[2])["data"]
        assert first["error_y"]["array"] == pytest.approx([0.1]) and first["text"] == ["sgd"]
        assert front["name"] == "Pareto front" and front["mode"] == "lines"

    def test_a_limit_far_above_is_written_instead_of_drawn(self):
        layout = to_plotly(replace(FIGURES[1], limit=(4000.0, "limit")))["layout"]
        assert layout["shapes"] == []
        assert (layout["annotations"][0]["text"], layout["annotations"][0]["yref"]) == ("limit", "paper")

    def test_series_keep_their_place_in_the_palette_and_are_hollow_where_not_ranked(self):
        series = replace(FIGURES[2].series[0], place=3, is_ranked=False)
        marker = to_plotly(replace(FIGURES[2], series=(series,)))["data"][0]["marker"]
        assert (marker["color"], marker["symbol"]) == (COLOURS[3], "cross-open")

    @pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.kind)
    def test_long_names_that_are_alike_stay_different(self, figure):
        names = [f"{'a' * 60} lr={rate} {'b' * 60}" for rate in (0.1, 0.2)]
        first = figure.series[0]
        several = tuple(
            replace(first, name=name, labels=(name,) if first.labels else (), x=(name, *first.x[1:]))
            for name in names
        )
        traces = to_plotly(replace(figure, series=several, front=None))["data"]
        one, other = (trace for trace in traces if "name" in trace)
        for key in ("name", "x", "text"):
            assert key not in one or one[key] != other[key]
        assert len(one["name"]) <= 80 and one["name"] == one["x"][0]

    @pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.kind)
    def test_plotly_accepts_the_figure(self, figure):
        import plotly.graph_objects

        plotly.graph_objects.Figure(to_plotly(figure)).to_json()
        json.dumps(to_plotly(figure), allow_nan=False)
