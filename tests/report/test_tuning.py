"""A search is shown from the records alone, and its trials are no cells of tables."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.report.forms import document_of, to_text
from tests.report.report_samples import STAND_IN, cell
from tests.report.trace_samples import trace
from tests.report.tuning_samples import (
    ADAM_SCORES,
    RATES,
    TRIAL_SEED,
    adam_trials,
    search,
    sgd_trials,
    trial,
    trials,
    tuned,
    tuned_records,
    tuned_run,
)
from xbench.api.html import to_html
from xbench.records.schema import CellRecord
from xbench.records.store import RunFolder
from xbench.records.summary import summarize_run
from xbench.records.tuning import RangeRecord
from xbench.report.breakdown import MEMORY_ROWS
from xbench.report.comparison import View, comparisons
from xbench.report.curves import read_curves
from xbench.report.declared_cells import list_ended, match_cells, match_trials
from xbench.report.emit import to_csv, to_json, to_latex, to_markdown
from xbench.report.page import make_page, make_run_page
from xbench.report.page_tables import make_cell_table
from xbench.report.run_comparison import NamedRun
from xbench.report.runs_document import make_runs_document
from xbench.report.tuning import TunedColumn, Tuning


def tuning_of(records: list[CellRecord], **fields) -> Tuning:
    (compared,) = comparisons(tuned_run(records, search(**fields)), records)
    assert compared.tuning is not None
    return compared.tuning


def column_of(records: list[CellRecord], name: str = "sgd", **fields) -> TunedColumn:
    return next(column for column in tuning_of(records, **fields).columns if column.name == name)


def lines_of(records: list[CellRecord], **fields) -> list[str]:
    """The findings and notes of the section."""
    declared = tuned_run(records, search(**fields))
    section = document_of(declared, records).sections[1]
    return [*section.findings, *section.notes]


def test_columns_that_were_not_tuned_are_named():
    records = [*tuned_records(), cell("adamw", 0, 0.8)]
    assert "not tuned: adamw, which has the settings of the suite" in lines_of(records)


class TestTrialsAreNoCells:
    @pytest.fixture
    def folder(self, tmp_path) -> RunFolder:
        """A run with all trials and final cells, each with a trace."""
        records = tuned_records()
        folder = RunFolder.create(tmp_path, "", tuned_run(records))
        for record in records:
            crc32 = folder.write_trace(record.cell_id, trace([2.0, 1.0]))
            folder.append(record.model_copy(update={"trace_crc32": crc32}))
        return folder

    def test_they_are_listed_apart(self, folder):
        declared, records = folder.read()
        assert {key.seed for key, _ in match_cells(declared, records)} == {0, 1, 2}
        assert len(list_ended(declared, records)) == 6
        found = match_trials(declared, records)
        assert {place: [r.trial.number for r in own] for place, own in found.items()} == {
            ("first", "sgd"): [1, 2, 3, 4, 5, 6, 7, 8],
            ("first", "adam"): [1, 2, 3, 4, 5, 6, 7, 8],
        }

    def test_tables_and_findings(self, folder):
        (compared,) = comparisons(*folder.read())
        assert [(column.name, column.planned, len(column.records)) for column in compared.columns] == [
            ("sgd", 3, 3),
            ("adam", 3, 3),
        ]
        assert all(finding.effect is None or finding.effect.n <= 3 for finding in compared.findings)
        assert not any("diverged" in line or "oom" in line for line in compared.conclusions)
        assert not any(str(TRIAL_SEED) in line for line in compared.notes)

    def test_frames(self, folder):
        from xbench import Results

        results = Results(folder.path)
        assert sorted(set(results.cells.seed)) == sorted(set(results.steps.seed)) == [0, 1, 2]
        assert repr(results).endswith("6 cells, 6 done>")
        assert len(results.trials) == 16

    def test_csv_and_json(self, folder):
        document = document_of(*folder.read())
        rows = list(csv.DictReader(io.StringIO(to_csv(document))))
        assert {row["seed"] for row in rows} == {"0", "1", "2"}
        (experiment,) = json.loads(to_json(document))["experiments"]
        assert len(experiment["cells"]) == 6
        assert len(experiment["trials"]) == 16

    def test_curves(self, folder):
        declared, records = folder.read()
        finals = {record.cell_id for record in records if record.trial is None}
        assert read_curves(folder, declared, records).keys() == finals

    def test_runs_that_are_compared(self, folder):
        named = NamedRun("A", "here", *folder.read())
        assert {name: list(found) for name, found in named.statuses["first"].items()} == {
            "sgd": [0, 1, 2],
            "adam": [0, 1, 2],
        }
        assert list(named.cells["first"]["adam"]) == [0, 1, 2]

    def test_the_page(self, folder):
        declared, records = folder.read()
        assert len(make_cell_table(declared, records).rows) == 6
        html = make_page([make_run_page(folder, "here", declared, records, comparisons(declared, records))])
        first = next(record for record in records if record.trial is not None)
        assert f"cell-1-{first.cell_id}" not in html
        assert "6 cells and 16 trials of searches" in html

    def test_the_list_of_runs_counts_them_apart(self, folder):
        summary = summarize_run(folder)
        assert (summary.statuses, summary.trials) == ({"done": 6}, 16)
        (row,) = make_runs_document([summary], "results", []).sections[0].tables[0].rows
        assert row[3] == "6 done, 16 trials"

    def test_the_list_of_runs_counts_trainings_that_searched_for_bytes_among_them(self, folder):
        final = next(record for record in folder.read()[1] if record.trial is None)
        smaller = {"cell_id": "smaller", "bytes_trial_of": final.cell_id, "status": "oom"}
        folder.append(final.model_copy(update=smaller))
        summary = summarize_run(folder)
        assert (summary.statuses, summary.trials) == ({"done": 6}, 17)


class TestSharedTrials:
    """Columns with the same cells share trials, which run for one of them."""

    def shared(self) -> list[CellRecord]:
        """Two trials of a first column, and a second one with a trial more and a cell."""
        first = trials("sgd", (0.5, 0.4))
        own = trial("sgd again", 3, {"lr": 0.2}, 0.3)
        ids = [record.cell_id for record in (*first, own)]
        return [*first, own, tuned("sgd again", 0, 0.8, own, 0.3, trials=ids)]

    def test_each_column_has_all_of_its_trials(self):
        records = self.shared()
        found = match_trials(tuned_run(records), records)
        assert [r.trial.number for r in found["first", "sgd"]] == [1, 2]
        assert [(r.column, r.trial.number) for r in found["first", "sgd again"]] == [
            ("sgd again", 1),
            ("sgd again", 2),
            ("sgd again", 3),
        ]

    def test_trials_that_another_run_has_are_told(self):
        found = trials("sgd", (0.5, 0.4))
        ids = [record.cell_id for record in found]
        cell = tuned("sgd", 0, 0.8, found[1], 0.4, trials=ids, reused_from="20260101-000000")
        assert "sgd: 2 trials of its search are not in the records of this run" in lines_of([cell])
        declared = tuned_run([cell])
        table = document_of(declared, [cell]).sections[1].tables[0]
        rows = {row[0]: row[1] for row in table.rows}
        assert rows["lr"] == "0.00042"
        assert rows["best validation loss"] == "- (trial 2)"
        assert rows["trials that succeeded"] == rows["closures of all trials"] == "-"


class TestChosen:
    def test_the_settings_that_cells_have(self):
        chosen = column_of(tuned_records(), "adam").chosen
        assert chosen is not None
        assert (chosen.trial, chosen.values, chosen.score, chosen.is_final) == (
            3,
            {"lr": 0.0011, "weight_decay": 0.001},
            0.27,
            True,
        )

    def test_before_a_cell_has_run_the_best_so_far(self):
        chosen = column_of(sgd_trials()[:4]).chosen
        assert chosen is not None
        assert (chosen.trial, chosen.score, chosen.is_final) == (4, 0.45, False)
        assert "sgd: the settings are the best so far; no cell has run with them yet" in lines_of(
            sgd_trials()
        )

    def test_of_equal_trials_the_first(self):
        assert column_of(trials("sgd", (0.5, 0.4, 0.4))).ranked[0] == (2, 0.4)

    def test_high_scores_are_best_if_the_search_says_so(self):
        assert column_of(trials("sgd", (0.5, 0.9, 0.4)), direction="max").ranked[0] == (2, 0.9)

    def test_a_failed_trial_is_never_chosen(self):
        records = [trial("sgd", 1, {"lr": 0.1}, 0.01, "diverged"), trial("sgd", 2, {"lr": 0.01}, 0.5)]
        column = column_of(records)
        assert (column.scores, column.failures) == ((None, 0.5), {"diverged": 1})

    def test_a_score_that_is_not_finite_counts_as_failed(self):
        column = column_of([trial("sgd", 1, {"lr": 0.1}, float("nan"), "done")])
        assert (column.succeeded, column.failures, column.chosen) == (0, {"done": 1}, None)


class TestSpent:
    def test_failed_trials_are_charged(self):
        column = column_of(adam_trials(), "adam")
        assert (column.succeeded, column.failures) == (6, {"diverged": 1, "oom": 1})
        assert (column.closures, column.training_s, column.untimed) == (700, 17.5, 1)

    def test_skipped_trials_cost_nothing_and_are_named(self):
        skipped = trial("sgd", 2, {"lr": 0.1}, None, "skipped", reason="no time is left")
        records = [trial("sgd", 1, {"lr": 0.01}, 0.5), skipped]
        column = column_of(records)
        assert (len(column.trials), column.closures, column.failures) == (1, 100, {})
        assert "sgd: 1 trial skipped: no time is left" in lines_of(records)
        rows = list(
            csv.DictReader(io.StringIO(to_csv(document_of(tuned_run(records), records), trials=True)))
        )
        assert [row["status"] for row in rows] == ["done", "skipped"]


class TestFindings:
    def test_failures_are_counted(self):
        assert "adam: 1 of 8 trials diverged, 1 ran out of memory" in lines_of(adam_trials())
        two = trials("sgd", (0.5, None, None))
        assert "sgd: 2 of 3 trials diverged" in lines_of(two)

    def test_no_trial_succeeded(self):
        lines = lines_of(trials("sgd", (None, None)))
        assert "sgd: no trial succeeded, so there are no settings to run with" in lines

    def test_a_value_on_the_edge(self):
        lines = lines_of(tuned_records())
        assert "sgd: lr = 0.098 lies on the edge of its space [0.0001, 0.1]: widen it" in lines
        assert not any(line.startswith("adam:") and "edge" in line for line in lines)

    def test_the_last_point_of_a_grid_is_an_edge_within_the_range(self):
        records = trials("sgd", (0.5, 0.4, 0.3), lr=(0.001, 0.003, 0.01))
        edge = "sgd: lr = 0.01 lies on the edge of its space [0.001, 0.01]: widen it"
        assert edge in lines_of(records, search="grid")
        assert not any("edge" in line for line in lines_of(records, search="quasi-random"))

    def near_tie_of(self, scores: tuple[float, float], losses: tuple[float, ...]) -> list[str]:
        found = trials("sgd", scores)
        finals = [tuned("sgd", seed, 0.8, found[0], loss) for seed, loss in enumerate(losses)]
        return [line for line in lines_of([*found, *finals]) if "the best two" in line]

    def test_two_trials_that_differ_by_less_than_seeds_do(self):
        assert self.near_tie_of((0.30, 0.31), (0.28, 0.30, 0.32)) == [
            "sgd: trials 1 and 2, the best two, differ by 0.010, less than two seeds typically do (0.028)"
        ]
        assert self.near_tie_of((0.30, 0.33), (0.28, 0.30, 0.32)) == []

    def test_two_seeds_do_not_tell_their_spread(self):
        assert self.near_tie_of((0.30, 0.31), (0.28, 0.32)) == []


class TestBestOf:
    def test_draws_of_trials_that_do_not_depend_on_each_other(self):
        curve = column_of(adam_trials(), "adam").best_of
        assert curve.is_expected
        assert curve.trials == (3, 4, 5, 6, 7, 8)
        assert curve.score[-1] == min(filter(None, ADAM_SCORES))

    def test_the_order_of_those_of_tpe(self):
        curve = column_of(sgd_trials()[::-1], search="tpe").best_of
        assert not curve.is_expected
        assert curve.score == (0.66, 0.61, 0.52, 0.45, 0.41, 0.36, 0.31, 0.29)


class TestForms:
    def test_text(self):
        records = tuned_records()
        text = to_text(document_of(tuned_run(records), records))
        assert "First: tuning" in text
        assert (
            "quasi-random search for the lowest validation loss; budget of each optimizer: 8 trials; "
            "seed of all trials: 1000" in text
        )
        rows = {
            line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:-1]]
            for line in text.splitlines()
            if line.startswith("│")
        }
        assert rows["lr"] == ["0.098", "0.0011"]
        assert rows["weight decay"] == ["-", "0.001"]
        assert rows["best validation loss"] == ["0.290 (trial 8)", "0.270 (trial 3)"]
        assert rows["trials that failed"] == ["0", "2 (1 diverged, 1 oom)"]
        assert rows["closures of all trials"] == ["800", "700"]
        assert rows["training time of all trials"] == ["20.0 s", "17.5 s"]

    @pytest.mark.parametrize(
        ("unit", "text"), [("closures", "8 gradient evaluations"), ("seconds", "8.00 s of training")]
    )
    def test_budgets(self, unit, text):
        records = sgd_trials()
        assert text in document_of(tuned_run(records, search(budget_unit=unit)), records).sections[1].data[0]

    @pytest.mark.parametrize("write", [to_markdown, to_latex, to_html])
    def test_other_forms_have_the_section(self, write):
        records = tuned_records()
        text = write(document_of(tuned_run(records), records))
        for part in ("First: tuning", "0.290 (trial 8)", "lies on the edge"):
            assert part in text

    def test_json(self):
        records = tuned_records()
        (experiment,) = json.loads(to_json(document_of(tuned_run(records), records)))["experiments"]
        tuning = experiment["tuning"]
        assert (tuning["search"], tuning["metric"]) == ("quasi-random", "validation_loss")
        sgd, adam = tuning["columns"]
        assert (adam["trial"], adam["values"], adam["is_final"]) == (
            3,
            {"lr": 0.0011, "weight_decay": 0.001},
            True,
        )
        assert adam["failed"] == {"diverged": 1, "oom": 1}
        assert adam["best_of"]["trials"] == [3, 4, 5, 6, 7, 8]
        assert [len(sgd["best_of"][key]) for key in ("score", "low", "high")] == [8, 8, 8]
        assert sgd["edges"] == [{"setting": "lr", "value": 0.098, "low": 0.0001, "high": 0.1, "end": "high"}]
        trial_3 = next(t for t in experiment["trials"] if t["column"] == "adam" and t["trial"] == 3)
        assert trial_3["is_chosen"]
        assert sum(t["is_chosen"] for t in experiment["trials"]) == 2

    def test_csv_of_trials(self):
        records = tuned_records()
        rows = list(
            csv.DictReader(io.StringIO(to_csv(document_of(tuned_run(records), records), trials=True)))
        )
        assert len(rows) == 16
        last = rows[-1]
        assert (last["column"], last["trial"], last["values.lr"], last["score"]) == ("adam", "8", "0.098", "")
        assert (last["status"], last["reason"], last["training_s"]) == ("oom", "memory ran out", "")
        assert rows[0]["values.weight_decay"] == ""

    def test_csv_without_a_search_has_a_header(self):
        records = [cell("sgd", 0, 0.8)]
        text = to_csv(document_of(tuned_run(records, search(spaces={})), records), trials=True)
        assert text.startswith("experiment,column,trial,values,score") and text.count("\n") == 1

    def test_frame(self, tmp_path):
        from xbench import Results

        records = tuned_records()
        folder = RunFolder.create(tmp_path, "", tuned_run(records))
        for record in records:
            folder.append(record)
        frame = Results(folder.path).trials
        assert list(frame.columns) == [
            *("experiment", "column", "trial", "values.lr", "values.weight_decay", "score", "is_chosen"),
            *("status", "reason", "closures", "training_s", "cell_id"),
        ]
        assert list(frame[frame.is_chosen].trial) == [8, 3]
        assert list(frame.status).count("oom") == 1
        assert frame.score.isna().sum() == 2
        assert list(frame["values.lr"][:8]) == list(RATES)

    def test_frame_without_a_search(self, tmp_path):
        from xbench import Results

        records = [cell("sgd", 0, 0.8)]
        folder = RunFolder.create(tmp_path, "", tuned_run(records, search(spaces={})))
        folder.append(records[0])
        assert Results(folder.path).trials.empty

    def test_many_optimizers_are_rows(self):
        names = [f"sgd momentum=0.{place}" for place in range(8)]
        records = [record for name in names for record in trials(name, (0.5, 0.4))]
        spaces = {name: {"lr": RangeRecord(low=1e-4, high=0.1)} for name in names}
        (table,) = document_of(tuned_run(records, search(spaces=spaces)), records).sections[1].tables
        assert table.header[:2] == ("optimizer", "lr")
        assert [row[0] for row in table.rows] == names

    def test_views_of_other_figures_have_no_such_section(self):
        records = tuned_records()
        assert len(document_of(tuned_run(records), records, view=View(rows=MEMORY_ROWS)).sections) == 1

    def test_a_metric_that_is_not_declared_has_its_name(self):
        records = sgd_trials()
        (section,) = document_of(tuned_run(records, search(metric="own_loss")), records).sections[1:]
        assert "lowest own loss" in section.data[0]

    def test_before_the_first_trial(self):
        declared = tuned_run([])
        section = document_of(declared, []).sections[1]
        rows = {row[0]: row[1:] for row in section.tables[0].rows}
        assert rows["lr"] == ("-", "-")
        assert rows["trials that succeeded"] == ("0", "0")


class TestPage:
    def page_of(self, tmp_path, records: list[CellRecord]) -> str:
        declared = tuned_run(records)
        folder = RunFolder.create(tmp_path, "", declared)
        return make_page([make_run_page(folder, "here", declared, records, comparisons(declared, records))])

    def test_it_has_the_settings_the_trials_and_what_limits_them(self, tmp_path):
        html = self.page_of(tmp_path, tuned_records())
        for part in ("<h4>Tuning</h4>", "adam, trial 8", "memory ran out", "lies on the edge of its space"):
            assert part in html

    def test_made_up_data_is_told_before_a_cell_has_run(self, tmp_path):
        made_up = [record.model_copy(update={"dataset": STAND_IN}) for record in sgd_trials()]
        assert '<p class="stand-in">' in self.page_of(tmp_path, made_up)

    def test_text_of_records_is_escaped(self, tmp_path):
        html = self.page_of(tmp_path, trials("<b>sgd</b>", (0.5, None)))
        assert "<b>sgd" not in html
