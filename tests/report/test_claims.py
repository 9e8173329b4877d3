"""What findings claim, and which figures are marked as alike, when there are several comparisons."""

from __future__ import annotations

import re

import pytest

from tests.report.report_samples import cell, run
from xbench.records.memory import MemoryRecord
from xbench.records.sampling import SamplingRecord
from xbench.report.comparison import Comparison, comparisons

STEADY = (0.80, 0.82, 0.81, 0.83)


def compare(*records) -> Comparison:
    (comparison,) = comparisons(run(records), list(records))
    return comparison


def seeds(column: str, *accuracies: float, **fields):
    return [cell(column, seed, accuracy, **fields) for seed, accuracy in enumerate(accuracies)]


def shifted(column: str, *differences: float):
    """A column whose accuracies differ from `STEADY` by these amounts."""
    return seeds(column, *(a + d for a, d in zip(STEADY, differences, strict=True)))


def row(comparison: Comparison, title: str = "test accuracy") -> list[str]:
    (found,) = [cells for name, *cells in comparison.table.rows if name == title]
    return [re.sub(r" ± [\d.]+", "", cell) for cell in found]


# p = 0.020 alone, and 0.020 * 3 among three comparisons.
CLOSE_CALL = (0.02, 0.05, 0.03, 0.06)


class TestHolm:
    def test_one_comparison_is_not_corrected(self):
        comparison = compare(*seeds("sgd", *STEADY), *shifted("adam", *CLOSE_CALL))
        (finding,) = comparison.findings
        assert finding.p == finding.effect.p == pytest.approx(0.0211, abs=1e-3)
        assert finding.is_better is True

    def test_more_comparisons_take_the_claim_back(self):
        noise = [shifted(name, 0.01, -0.02, 0.02, -0.01) for name in ("muon", "lion")]
        comparison = compare(*seeds("sgd", *STEADY), *shifted("adam", *CLOSE_CALL), *noise[0], *noise[1])
        finding = comparison.findings[0]
        assert finding.p == pytest.approx(3 * finding.effect.p)
        assert (finding.is_significant, finding.is_better) == (False, None)
        assert finding.effect.is_significant  # its interval, which is not corrected, excludes no difference
        assert finding.text.startswith(
            "no significant difference between adam and sgd after Holm's correction: 0.040 [0.0"
        )
        assert comparison.conclusions[-1].endswith(
            "claims hold at 5% after Holm's correction for 3 comparisons"
        )

    def test_marks_count_all_pairs_of_columns(self):
        one = compare(*seeds("sgd", *STEADY), *shifted("adam", *CLOSE_CALL))
        assert row(one) == ["0.815", "0.855 ★"]
        worse = [shifted(name, -0.21, -0.18, -0.22, -0.19) for name in ("muon", "lion")]
        four = compare(*seeds("sgd", *STEADY), *shifted("adam", *CLOSE_CALL), *worse[0], *worse[1])
        assert row(four) == ["0.815 ~", "0.855 ★", "0.615", "0.615"]


class TestTies:
    def test_equal_figures_are_called_equal(self):
        (line, *_) = compare(*seeds("sgd", *STEADY), *seeds("adam", *STEADY)).conclusions
        assert line == "test accuracy: adam and sgd are equal in all 4 seeds"

    def test_equal_differences_of_few_seeds_are_no_claim(self):
        comparison = compare(*seeds("sgd", *STEADY), *shifted("adam", 0.1, 0.1, 0.1, 0.1))
        (finding,) = comparison.findings
        assert finding.p == 1 / 8
        assert finding.text.startswith("adam is 0.100 higher than sgd in each of 4 seeds (no claim: ")
        assert row(comparison) == ["0.815 ~", "0.915 ★"]

    def test_equal_differences_of_six_seeds_are_a_claim(self):
        comparison = compare(*seeds("sgd", *[0.8] * 6), *seeds("adam", *[0.9] * 6))
        assert comparison.findings[0].text == "adam is better than sgd by 0.100 in each of 6 seeds"

    def test_sizes_need_no_test(self):
        def sized(column, size_bytes):
            memory = MemoryRecord(peak_device_bytes=size_bytes)
            return [cell(column, seed, memory=memory) for seed in range(2)]

        (line, *_) = compare(*sized("sgd", 100_000_000), *sized("adam", 150_000_000)).conclusions
        assert line == "peak memory: adam takes 1.50 times as much as sgd in each of 2 seeds"

    def test_a_figure_that_is_equal_for_all_seeds_has_no_interval(self):
        comparison = compare(*seeds("sgd", 0.8, 0.8), *seeds("adam", 0.7, 0.9))
        (cells,) = [line[1:] for line in comparison.table.rows if line[0] == "test accuracy"]
        assert cells[0].split() == ["0.800"]
        assert "± " in cells[1]
        assert "sgd: equal for all seeds, so without an interval: test accuracy" in comparison.notes


class TestWhereStudentDoesNotFit:
    TIED = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.97, 1.0)

    def test_a_difference_with_ties_has_an_exact_interval(self):
        comparison = compare(*seeds("sgd", *[0.94] * 8), *seeds("adam", *self.TIED))
        (finding,) = comparison.findings
        assert finding.effect.method == "sign flips"
        assert finding.p == pytest.approx(2 / 2**8)
        assert finding.text.startswith("adam is better than sgd by 0.056 [0.0")
        assert finding.text.endswith("; n = 8, exact]")
        assert "exact intervals are of sign flips, because t does not fit" in comparison.conclusions[-1]

    def test_a_skewed_difference_has_an_exact_interval(self):
        skewed = [0.81, 0.82, 0.815, 0.825, 0.805, 0.3, 0.81, 0.82]
        (finding,) = compare(*seeds("sgd", *[0.7] * 8), *seeds("adam", *skewed)).findings
        assert (finding.effect.method, finding.is_significant) == ("sign flips", False)

    def test_intervals_of_figures_are_said_to_be_approximate(self):
        comparison = compare(*seeds("adam", *self.TIED))
        (note,) = [note for note in comparison.notes if "±" in note]
        assert note.endswith("over 8 seeds, which is approximate: it assumes normal values")

    def test_few_seeds_are_said_to_be_approximate(self):
        comparison = compare(*seeds("sgd", *STEADY), *shifted("adam", *CLOSE_CALL))
        assert "with fewer than 6 seeds they are approximate" in comparison.conclusions[-1]

    def test_six_seeds_that_look_normal_are_not(self):
        values = (0.80, 0.82, 0.81, 0.83, 0.79, 0.84)
        comparison = compare(*seeds("sgd", *values), *seeds("adam", *(0.9, 0.91, 0.92, 0.90, 0.93, 0.89)))
        assert "approximate" not in comparison.conclusions[-1]


def test_the_test_set_is_told_apart_from_the_seeds():
    def sampled(column, half_width, *accuracies):
        record = SamplingRecord(rows=624, groups=300, half_widths={"test_accuracy": half_width})
        return seeds(column, *accuracies, sampling=record)

    comparison = compare(*sampled("sgd", 0.02, 0.80, 0.82), *sampled("adam", 0.03, 0.90, 0.92))
    (note,) = [note for note in comparison.notes if "test set" in note]
    assert note == (
        "the test set has 624 examples in 300 groups: another one like it may change test accuracy by "
        "± 0.020 to 0.030 (95% bootstrap over its groups), which intervals and claims leave out: they are "
        "about seeds (± 0.127)"
    )
