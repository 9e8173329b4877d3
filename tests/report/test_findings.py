"""What follows from the figures of a comparison."""

from __future__ import annotations

import json
import re

import pytest

from tests.report.forms import document_of, to_text
from tests.report.report_samples import REAL, cell, failed, run
from xbench.errors import XbenchError
from xbench.records.memory import MemoryRecord
from xbench.records.metrics import CLASSIFICATION
from xbench.records.schema import ExperimentRecord, Times
from xbench.report.comparison import Comparison, View, comparisons
from xbench.report.effects import Effect
from xbench.report.emit import to_csv, to_json, to_latex, to_markdown
from xbench.report.findings import Finding
from xbench.report.rows import make_main_rows


def compare(*records, baseline="", view=None) -> Comparison:
    experiment = ExperimentRecord(name="first", title="First", baseline=baseline)
    (comparison,) = comparisons(run(records, experiment), list(records), view)
    return comparison


def seeds(column: str, *accuracies: float, **fields):
    return [cell(column, seed, accuracy, **fields) for seed, accuracy in enumerate(accuracies)]


CLOSE = [*seeds("sgd", 0.80, 0.82, 0.84), *seeds("adam", 0.90, 0.92, 0.93), *seeds("muon", 0.79, 0.93, 0.95)]


def row(comparison: Comparison, title: str) -> tuple[str, ...]:
    (found,) = [cells for name, *cells in comparison.table.rows if name == title]
    return tuple(re.sub(r" ± [\d.]+( s)?", "", cell) for cell in found)


class TestMarks:
    def test_best_and_those_that_are_alike(self):
        assert row(compare(*CLOSE), "test accuracy") == ("0.820", "0.917 ★", "0.890 ~")

    def test_lower_is_better_for_times(self):
        def timed(column, *times):
            return [cell(column, s, time=Times(training_s=t)) for s, t in enumerate(times)]

        comparison = compare(*timed("sgd", 1.0, 1.1), *timed("adam", 2.0, 2.11))
        assert row(comparison, "training time") == ("1.05 s ★", "2.05 s")

    def test_marks_and_findings_of_a_time_agree(self):
        def timed(column, *times):
            return [cell(column, s, time=Times(training_s=t)) for s, t in enumerate(times)]

        comparison = compare(*timed("a", 1, 10, 100), *timed("b", 1.1, 11.2, 109))
        assert not any("~" in text for text in row(comparison, "training time"))
        assert comparison.conclusions[0].startswith("training time: b takes 1.10 times as much as a [1.07, ")

    def test_figures_that_look_the_same_are_marked_alike(self):
        comparison = compare(*seeds("sgd", 0.80001), *seeds("adam", 0.80002), *seeds("muon", 0.5))
        assert row(comparison, "test accuracy") == ("0.800 ★", "0.800 ★", "0.500")
        assert row(compare(*seeds("sgd", 0.8), *seeds("adam", 0.8)), "test accuracy") == ("0.800", "0.800")

    def test_one_seed_is_no_claim(self):
        comparison = compare(*seeds("sgd", 0.8), *seeds("adam", 0.9))
        assert row(comparison, "test accuracy") == ("0.800", "0.900 ★")
        assert any("(one seed each, so it may be chance)" in note for note in comparison.notes)

    def test_a_single_column_has_no_best(self):
        assert row(compare(*seeds("sgd", 0.8, 0.9)), "test accuracy") == ("0.850",)

    def test_sizes_that_were_chosen_are_not_marked(self):
        assert row(compare(*seeds("sgd", 0.8), *seeds("adam", 0.9)), "batch") == ("5", "5")


class TestFindings:
    def test_every_column_is_compared_with_the_first(self):
        (line, *_) = compare(*CLOSE).conclusions
        assert line.startswith("test accuracy: adam is better than sgd by 0.097 [")
        assert "; n = 3]; no significant difference between muon and sgd: 0.070 [-0." in line

    def test_method_is_named(self):
        assert "95% paired t intervals" in compare(*CLOSE).conclusions[-1]

    @pytest.mark.parametrize("baseline", ["adam", "adam lr=0.1"])
    def test_baseline_of_the_suite(self, baseline):
        records = [*seeds("sgd", 0.8, 0.81), *seeds("adam lr=0.1", 0.9003, 0.9097)]
        (line, *_) = compare(*records, baseline=baseline).conclusions
        assert line.startswith("test accuracy: sgd is worse than adam lr=0.1 by 0.100 [0.096, 0.104; n = 2]")

    def test_baseline_of_the_user_comes_first(self):
        comparison = compare(*CLOSE, baseline="adam", view=View(baseline="muon"))
        assert comparison.baseline == "muon"

    @pytest.mark.parametrize(
        ("wanted", "problem"), [("nadam", "is not a column"), ("sgd", "matches several columns")]
    )
    def test_unknown_or_ambiguous_baseline(self, wanted, problem):
        records = [*seeds("sgd lr=0.1", 0.8), *seeds("sgd lr=0.2", 0.8)]
        with pytest.raises(XbenchError, match=f"baseline '{wanted}' {problem}") as caught:
            compare(*records, view=View(baseline=wanted))
        assert "sgd lr=0.1" in caught.value.hint

    def test_one_seed_is_no_claim(self):
        (line,) = compare(*seeds("sgd", 0.8), *seeds("adam", 0.9), *seeds("muon", 0.7)).conclusions
        assert line == (
            "test accuracy: adam is 0.100 higher than sgd; muon is 0.100 lower than sgd (one seed: no claim)"
        )

    def test_memory_and_times_are_compared_by_ratio(self):
        def sized(column, mb, seconds):
            return cell(
                column, memory=MemoryRecord(peak_device_bytes=mb * 10**6), time=Times(training_s=seconds)
            )

        lines = compare(sized("sgd", 100, 10.0), sized("adam", 150, 20.0)).conclusions
        assert lines == (
            "training time: adam takes 2.00 times as much as sgd (one seed: no claim)",
            "peak memory: adam takes 1.50 times as much as sgd (one seed: no claim)",
        )

    def test_a_ratio_that_looks_like_one_is_no_multiple(self):
        def sized(column, seed, size_bytes):
            return cell(column, seed, memory=MemoryRecord(peak_device_bytes=size_bytes))

        sgd = [sized("sgd", seed, 500_000_000 + seed) for seed in range(3)]
        adam = [sized("adam", seed, 500_004_096 + seed) for seed in range(3)]
        (line, _) = compare(*sgd, *adam).conclusions
        assert line == "peak memory: adam takes as much as sgd in each of 3 seeds"

    def test_a_ratio_with_a_zero_is_not_defined(self):
        def timed(column, *times):
            return [cell(column, s, time=Times(training_s=t)) for s, t in enumerate(times)]

        (line, *_) = compare(*timed("a", 0, 1, 1), *timed("b", 1, 2, 2)).conclusions
        assert line == "training time: b cannot be compared (a value is not above zero)"

    def test_an_infinite_value(self):
        (line, *_) = compare(*seeds("a", 0.5, 0.6), *seeds("b", float("inf"), 0.6)).conclusions
        assert line.startswith("test accuracy: the difference between b and a is not finite")

    def test_an_interval_that_reaches_beyond_zero_keeps_its_signs(self):
        low_end = Effect("difference", 0.02, -0.001, 0.04, tuple(range(6)), "sign flips", 0.05)
        row = make_main_rows([CLASSIFICATION[1]])[0]
        assert Finding(row, "adam", "sgd", low_end, p=0.05).text.endswith(
            " by 0.020 [-0.001, 0.040; n = 6, exact]"
        )
        worse = Effect("difference", -0.02, -0.04, -0.01, tuple(range(6)), "sign flips", 0.03)
        assert Finding(row, "adam", "sgd", worse, p=0.03).text.endswith(
            " by 0.020 [0.010, 0.040; n = 6, exact]"
        )

    def test_two_seeds_are_few(self):
        comparison = compare(*seeds("sgd", 0.8, 0.9), *seeds("adam", 0.7, 0.9))
        assert any(note.endswith("intervals of two seeds are wide") for note in comparison.notes)

    def test_times_that_are_not_ranked_are_not_compared(self):
        def timed(column, malloc):
            return cell(column, time=Times(training_s=2.0), memory=MemoryRecord(malloc=malloc))

        (line,) = compare(timed("sgd", "fast"), timed("adam", "exact")).conclusions
        assert line.startswith("training time: adam cannot be compared (the times are not ranked: ")

    def test_small_differences_keep_their_digits(self):
        (line,) = compare(*seeds("sgd", 0.8), *seeds("adam", 0.80012)).conclusions
        assert "0.00012 higher" in line

    def test_a_column_without_results(self):
        lines = compare(*seeds("sgd", 0.8), failed("adam", "oom", "too much")).conclusions
        assert lines == (
            "test accuracy: adam cannot be compared (adam has no value)",
            "adam, seed 0: oom: too much",
        )

    def test_columns_without_a_common_seed(self):
        lines = compare(cell("sgd", 0, 0.8), cell("adam", 1, 0.9)).conclusions
        assert lines == ("test accuracy: adam cannot be compared (it shares no seed with sgd)",)


class TestForms:
    @pytest.fixture
    def document(self):
        return document_of(run(CLOSE), CLOSE)

    def test_json_has_numbers(self, document):
        (experiment,) = json.loads(to_json(document))["experiments"]
        first, second = experiment["findings"][:2]
        assert experiment["baseline"] == "sgd"
        assert (first["figure"], first["column"], first["baseline"]) == ("test_accuracy", "adam", "sgd")
        assert first["estimate"] == pytest.approx(0.0966667)
        assert first["low"] < first["estimate"] < first["high"]
        assert (first["n"], first["seeds"], first["is_significant"], first["is_better"]) == (
            *(3, [0, 1, 2]),
            *(True, True),
        )
        assert (second["is_significant"], second["is_better"]) == (False, None)

    def test_csv_of_findings(self, document):
        header, first, *_ = to_csv(document, findings=True).splitlines()
        assert header.startswith("experiment,figure,column,baseline,kind,estimate,low,high,n,")
        assert first.startswith("first,test_accuracy,adam,sgd,difference,0.09")

    def test_csv_without_findings_has_its_header(self):
        records = seeds("sgd", 0.8)
        text = to_csv(document_of(run(records), records), findings=True)
        assert text.startswith("experiment,figure,column,baseline,kind,estimate")
        assert text.count("\n") == 1

    @pytest.mark.parametrize("write", [to_markdown, to_latex, to_text])
    def test_text_forms_have_the_sentences(self, document, write):
        assert "adam is better than sgd by 0.097" in write(document)

    def test_latex_escapes_what_it_would_obey(self):
        records = seeds("sgd_50%", 0.8, 0.9)
        text = to_latex(document_of(run(records), records))
        assert r" & sgd\_50\% \\" in text
        assert r"0.850 $\pm$ 0.635" in text
        assert r"\begin{tabular}{lr}" in text

    def test_wide_characters_take_two_cells(self):
        names = [f"{name}模型优化器比较研究实验结果表模型优化器" for name in "ab"]
        records = [record for name in names for record in seeds(name, 0.8, 0.9)]
        text = to_text(document_of(run(records), records), width=60)
        assert sum("test accuracy" in line and "±" in line for line in text.splitlines()) == 2

    def test_a_terminal_without_unicode(self, document):
        text = to_text(document, encoding="ascii")
        assert "+-" in text
        assert " ^ " in text


class TestManyOptimizers:
    RECORDS = tuple(
        record
        for place in range(20)
        for record in seeds(
            f"optimizer-{place}", *(0.5 + ((7 * place) % 20 + seed) / 100 for seed in range(3))
        )
    )

    def test_they_become_rows_sorted_by_the_first_metric(self):
        table = compare(*self.RECORDS).table
        assert table.header[:2] == ("optimizer", "test accuracy")
        means = [float(line[1].split()[0]) for line in table.rows]
        assert len(means) == 20
        assert means == sorted(means, reverse=True)

    @pytest.mark.parametrize("width", [80, 120])
    def test_tables_fit_and_break_no_number(self, width):
        text = to_text(document_of(run(self.RECORDS), self.RECORDS), width=width)
        tables = [line for line in text.splitlines() if line.startswith(("┃", "│"))]
        assert max(map(len, tables)) <= width
        assert sum("±" in line and "0." in line.split("±")[1] for line in tables) >= 20
        assert not any(line.rstrip(" │").endswith("±") for line in tables)

    def test_sorting_and_choosing_figures(self):
        records = [*seeds("sgd", 0.8), *seeds("adam", 0.9), *seeds("muon", 0.7)]
        table = compare(*records, view=View(sort="test_accuracy", keys=("steps", "test_accuracy"))).table
        assert table.header == ("", "adam", "sgd", "muon")
        assert [title for title, *_ in table.rows] == ["steps", "test accuracy"]

    @pytest.mark.parametrize("view", [View(sort="beauty"), View(keys=("beauty",))])
    def test_figures_that_do_not_exist(self, view):
        with pytest.raises(XbenchError, match="beauty") as caught:
            compare(*seeds("sgd", 0.8), view=view)
        assert "test_accuracy" in caught.value.hint


def test_columns_of_different_datasets_are_not_compared():
    def of(dataset: str, column: str, *accuracies: float):
        records = seeds(column, *accuracies)
        return [
            r.model_copy(update={"dataset": r.dataset.model_copy(update={"name": dataset})}) for r in records
        ]

    comparison = compare(
        *of("wine", "sgd-wine", 0.80, 0.81),
        *of("digits", "sgd-digits", 0.50, 0.51),
        *of("wine", "adam-wine", 0.90, 0.92),
        *of("digits", "adam-digits", 0.40, 0.42),
    )
    pairs = {(finding.column, finding.baseline) for finding in comparison.findings}
    assert pairs == {("adam-wine", "sgd-wine"), ("adam-digits", "sgd-digits")}
    marks = ["★" in figure for figure in row(comparison, "test accuracy")]
    assert marks == [False, True, True, False]
    assert "columns are compared with those of the same dataset only" in comparison.notes
    assert any(note.startswith("★ best of its dataset in its row") for note in comparison.notes)


def test_nor_are_those_of_one_dataset_with_other_settings():
    def of(noise: float, column: str, *accuracies: float):
        data = REAL.model_copy(update={"params": {"noise": noise}})
        return [r.model_copy(update={"dataset": data}) for r in seeds(column, *accuracies)]

    comparison = compare(
        *of(0.0, "sgd noise=0.0", 0.90, 0.91),
        *of(0.5, "sgd noise=0.5", 0.60, 0.61),
        *of(0.0, "adam noise=0.0", 0.80, 0.81),
    )
    pairs = {(finding.column, finding.baseline) for finding in comparison.findings}
    assert pairs == {("adam noise=0.0", "sgd noise=0.0")}
