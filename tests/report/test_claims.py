"""What findings claim, and which figures are marked as alike, when there are several comparisons."""

from __future__ import annotations

import re

import pytest

from tests.report.report_samples import cell, failed, memory_pass, run
from xbench.records.memory import MemoryRecord
from xbench.records.sampling import SamplingRecord
from xbench.records.schema import DataRecord
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

    def test_columns_that_look_alike_count_as_pairs_too(self):
        """p = 0.020 alone and 0.061 for three pairs, of which two columns look the same."""
        best, worse = shifted("adam", *CLOSE_CALL), seeds("sgd", *STEADY)
        same = shifted("lion", *(d + e for d, e in zip(CLOSE_CALL, (1e-4, -2e-4, 2e-4, -1e-4), strict=True)))
        assert row(compare(*worse, *best, *same)) == ["0.815 ~", "0.855 ★", "0.855 ★"]

    def test_the_others_are_compared_with_the_best_figure_and_not_with_one_that_looks_like_it(self):
        """The first column looks like the best one, but is so noisy that its test would show nothing."""
        noisy = shifted("lion", -0.10, 0.24, -0.09, 0.1099)
        better = shifted("adam", 0.0399, 0.0402, 0.0400, 0.0401)
        comparison = compare(*noisy, *better, *seeds("sgd", *STEADY))
        assert row(comparison) == ["0.855 ★", "0.855 ★", "0.815"]


class TestFewerSeeds:
    def test_a_figure_over_fewer_seeds_is_neither_best_nor_worse(self):
        others = [*seeds("adam", *STEADY), *shifted("lion", *CLOSE_CALL)]
        comparison = compare(*seeds("sgd", 0.95), failed("sgd", "oom", "too much", 1), *others)
        assert row(comparison) == ["0.950 (1 of 2 seeds)", "0.815", "0.855 ★"]
        note = "figures over fewer seeds than others of their row are not ranked: no ★, no ~"
        assert note in comparison.notes

    def test_the_only_figure_over_all_seeds_is_not_the_best(self):
        comparison = compare(*seeds("sgd", 0.95), failed("sgd", "oom", "x", 1), *seeds("adam", *STEADY))
        assert row(comparison) == ["0.950 (1 of 2 seeds)", "0.815"]

    def test_what_shares_too_few_seeds_with_the_best_is_said_to_be_untested(self):
        early = [cell("sgd", seed, 0.5 + seed / 100) for seed in (0, 1)]
        late = [cell("adam", seed, 0.9 + seed / 100) for seed in (1, 2)]
        comparison = compare(*early, *late)
        assert row(comparison) == ["0.505 ~", "0.915 ★"]
        assert any("or not tested, as they share fewer than two seeds" in note for note in comparison.notes)

    def test_notes_of_complete_tables_do_not_mention_it(self):
        notes = compare(*seeds("sgd", *STEADY), *shifted("adam", 0.02, -0.02, 0.02, -0.01)).notes
        assert any("~ not significantly different" in note for note in notes)
        assert not any("fewer" in note for note in notes if "★" in note)


class TestMemoryThatIsMeasuredOnce:
    def sized(self, column: str, mb: int, count: int = 2):
        taken = memory_pass(process=mb).model_copy(update={"cell_id": f"of {column}"})
        return [cell(column, seed, memory_pass=taken) for seed in range(count)]

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_a_small_difference_is_not_claimed_however_many_seeds_share_it(self, count):
        comparison = compare(*self.sized("sgd", 488, count), *self.sized("adam", 491, count))
        (finding,) = comparison.findings
        assert finding.text == "no difference above 1% between adam and sgd (measured once each)"
        assert (finding.p, finding.is_significant, finding.is_better) == (None, None, None)
        assert (finding.effect.method, finding.effect.low) == ("measured once", None)
        assert row(comparison, "peak memory") == ["488 MB ★", "491 MB ~"]
        assert any(
            "memory is measured once for all seeds of an optimizer, and is ~ up to a difference of 1%" in note
            for note in comparison.notes
        )

    def test_a_larger_difference_is_claimed_without_a_test(self):
        comparison = compare(*self.sized("sgd", 488), *self.sized("adam", 494), *self.sized("lbfgs", 700))
        assert comparison.conclusions[:2] == (
            "peak memory: adam takes 1.01 times as much as sgd; lbfgs takes 1.43 times as much as sgd "
            "(measured once each)",
            "memory is measured once for all seeds of an optimizer, and no difference up to 1% (and at least "
            "1 MB) is claimed",
        )
        assert [finding.is_better for finding in comparison.findings] == [False, False]
        assert row(comparison, "peak memory") == ["488 MB ★", "494 MB", "700 MB"]

    def test_it_is_no_comparison_that_others_are_corrected_for(self):
        columns = {"sgd": STEADY, "adam": [a + d for a, d in zip(STEADY, CLOSE_CALL, strict=True)]}
        records = [
            cell(column, seed, accuracy, memory_pass=memory_pass(process=mb))
            for (column, values), mb in zip(columns.items(), (400, 500), strict=True)
            for seed, accuracy in enumerate(values)
        ]
        comparison = compare(*records)
        accuracy, memory = comparison.findings
        assert accuracy.p == accuracy.effect.p
        assert accuracy.is_better is True
        assert memory.p is None

    def test_sizes_that_seeds_do_not_share_are_tested(self):
        def of_configurations(column, *mbs):
            return [
                cell(
                    column, seed, memory_pass=memory_pass(process=mb).model_copy(update={"cell_id": f"{mb}"})
                )
                for seed, mb in enumerate(mbs)
            ]

        comparison = compare(
            *of_configurations("sgd", 400, 402, 401), *of_configurations("adam", 503, 501, 502)
        )
        assert comparison.findings[0].effect.method == "t"

    def test_small_sizes_differ_by_more_than_a_megabyte_or_not_at_all(self):
        def above(column, mb):
            return [
                cell(column, seed, memory_pass=memory_pass(process=400, activations=mb)) for seed in (0, 1)
            ]

        columns = [*above("sgd", 2), *above("adam", 3), *above("lion", 4)]
        assert row(compare(*columns), "  above base") == ["2.00 MB ★", "3.00 MB ~", "4.00 MB"]


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


def test_test_sets_of_the_same_size_have_a_note_each():
    def on(name, half_width, *accuracies):
        data = DataRecord(requested=name, name=name, fingerprint=f"of {name}")
        record = SamplingRecord(rows=200, groups=200, half_widths={"test_accuracy": half_width})
        return seeds(f"sgd dataset={name}", *accuracies, sampling=record, dataset=data)

    comparison = compare(*on("wine", 0.02, 0.80, 0.82), *on("digits", 0.05, 0.90, 0.91))
    notes = [note for note in comparison.notes if note.startswith("the test set")]
    assert [
        re.findall(r"the test set of (\w+) has .* by ± ([\d.]+) .*seeds \(± ([\d.]+)\)", note)
        for note in notes
    ] == [
        [("wine", "0.020", "0.127")],
        [("digits", "0.050", "0.064")],
    ]
