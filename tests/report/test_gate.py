"""Gates: which rules are understood, and which check fails for which reason."""

from __future__ import annotations

import pytest

from tests.report.report_samples import cell, failed, memory_pass, run
from tests.report.test_run_comparison import column_of, named, timed
from xbench.errors import XbenchError
from xbench.records.schema import Times
from xbench.report.gate import check_gate, describe_failures, parse_rules
from xbench.report.run_comparison import compare_runs, list_figures

FIGURES = list_figures(run([]))


def check(before, after, *rules: str):
    parsed = parse_rules(rules, FIGURES)
    keys = [rule.row.key for rule in parsed]
    return check_gate(parsed, [compare_runs(named("A", before), named("B", after), keys)])


def outcome(before, after, rule: str) -> tuple[str, str]:
    (found,) = check(before, after, rule)
    return found.outcome, found.why


def with_memory(*megabytes: int):
    return [
        timed("sgd", seed, 0.5, memory_pass=memory_pass(process=size)) for seed, size in enumerate(megabytes)
    ]


def with_accuracy(*values: float):
    return [timed("sgd", seed, value) for seed, value in enumerate(values)]


class TestRules:
    @pytest.mark.parametrize(
        ("text", "key", "kind", "threshold"),
        [
            ("peak_memory:5%", "needed_bytes", "ratio", 1.05),
            ("needed_bytes:0.05", "needed_bytes", "ratio", 1.05),
            ("training_time:10%", "training_s", "ratio", 1.1),
            (" training_s : +1e-1 ", "training_s", "ratio", 1.1),
            ("step_ms_median:-5%", "step_ms_median", "ratio", 0.95),
            ("test_accuracy:-0.01", "test_accuracy", "difference", -0.01),
            ("test_loss:0.05", "test_loss", "difference", 0.05),
            ("test_loss:5%", "test_loss", "ratio", 1.05),
        ],
    )
    def test_understood(self, text, key, kind, threshold):
        (rule,) = parse_rules([text], FIGURES)
        assert (rule.row.key, rule.kind) == (key, kind)
        assert rule.threshold == pytest.approx(threshold)

    @pytest.mark.parametrize(
        "text",
        ["", "peak_memory", "peak_memory:", "peak_memory:x", "peak_memory:5 MB", "a:b:1", ":5%", "x" * 500],
    )
    def test_malformed(self, text):
        with pytest.raises(XbenchError, match="not a figure and a change") as caught:
            parse_rules([text], FIGURES)
        assert "peak_memory:5%" in caught.value.hint

    def test_an_unknown_figure_lists_those_that_are_known(self):
        with pytest.raises(XbenchError, match="no figure 'accuracy'") as caught:
            parse_rules(["accuracy:-0.01"], FIGURES)
        assert {"peak_memory", "training_time", "test_accuracy"} <= set(
            caught.value.hint.removeprefix("known: ").split(", ")
        )

    def test_a_percentage_of_an_accuracy(self):
        with pytest.raises(XbenchError, match="not in percent") as caught:
            parse_rules(["test_accuracy:-1%"], FIGURES)
        assert "test_accuracy:-0.01" in caught.value.hint

    @pytest.mark.parametrize("text", ["peak_memory:-100%", "training_time:-2", "peak_memory:1e999"])
    def test_changes_that_cannot_be(self, text):
        with pytest.raises(XbenchError, match=r"cannot fall|not finite"):
            parse_rules([text], FIGURES)


class TestDecision:
    def test_a_run_against_itself_passes(self):
        found = check(
            column_of(),
            column_of(),
            "peak_memory:5%",
            "test_accuracy:-0.01",
            "training_time:10%",
            "peak_memory:0",
        )
        assert [check.outcome for check in found] == ["passed"] * 4

    def test_a_run_that_became_worse_fails(self):
        found = check(
            column_of(), column_of(-0.1, 20.0), "test_accuracy:-0.01", "training_time:10%", "peak_memory:5%"
        )
        assert [check.outcome for check in found] == ["failed", "failed", "passed"]
        assert "fell by 0.100" in found[0].why
        assert "significant" in found[0].why
        (first, _) = describe_failures(found)
        assert first.startswith("test_accuracy:-0.01 failed in B for sgd of first: it fell by")

    def test_a_run_that_became_better_passes(self):
        assert outcome(column_of(), column_of(0.1), "test_accuracy:-0.01")[0] == "passed"
        assert outcome(with_memory(400), with_memory(300), "peak_memory:5%")[0] == "passed"

    def test_beyond_the_threshold_but_not_significant_passes_from_three_pairs_on(self):
        before, after = with_accuracy(0.5, 0.5, 0.5), with_accuracy(0.6, 0.2, 0.5)
        decided, why = outcome(before, after, "test_accuracy:-0.01")
        assert decided == "passed"
        assert "not significant" in why

    def test_with_two_pairs_the_estimate_decides(self):
        decided, why = outcome(with_accuracy(0.5, 0.5), with_accuracy(0.6, 0.2), "test_accuracy:-0.01")
        assert decided == "failed"
        assert "the estimate alone decides" in why

    @pytest.mark.parametrize(("megabytes", "expected"), [(419, "passed"), (421, "failed")])
    def test_one_seed(self, megabytes, expected):
        assert outcome(with_memory(400), with_memory(megabytes), "peak_memory:5%")[0] == expected

    @pytest.mark.parametrize(("megabytes", "expected"), [(419, "passed"), (421, "failed")])
    def test_memory_that_seeds_share_is_one_measurement(self, megabytes, expected):
        decided, why = outcome(with_memory(*[400] * 8), with_memory(*[megabytes] * 8), "peak_memory:5%")
        assert decided == expected
        assert "measured once in each run" in why
        assert "significant" not in why

    def test_significant_but_within_the_threshold_passes(self):
        assert (
            outcome(with_memory(400, 401, 402), with_memory(404, 405, 406), "peak_memory:5%")[0] == "passed"
        )

    def test_an_improvement_that_is_demanded_has_to_come(self):
        decided, why = outcome(column_of(), column_of(), "test_accuracy:0.01")
        assert decided == "failed"
        assert "required" in why

    def test_a_loss_in_percent(self):
        losses = [[cell("sgd", 0, metrics={"test_loss": value})] for value in (2.0, 2.3, 0.0)]
        assert outcome(losses[0], losses[1], "test_loss:20%")[0] == "passed"
        assert outcome(losses[0], losses[1], "test_loss:10%")[0] == "failed"
        decided, why = outcome(losses[0], losses[2], "test_loss:10%")
        assert (decided, "not above zero" in why) == ("failed", True)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_value_that_is_not_finite_fails(self, value):
        before, after = ([cell("sgd", 0, metrics={"test_loss": loss})] for loss in (1.0, value))
        assert outcome(before, after, "test_loss:0.1") == ("failed", "the change is not a finite number")


class TestMissing:
    def test_a_measurement_that_both_runs_have_is_no_pair(self):
        """Two of the three seeds were reused, so only the third can show a change."""

        def of(third: float):
            own = f"2026-02-01T12:00:0{round(10 * third)}.000+00:00"
            taken_over = [timed("sgd", seed, 0.5, reused_from="P") for seed in (0, 1)]
            return [*taken_over, timed("sgd", 2, third, started_at=own)]

        assert outcome(of(0.9), of(0.1), "test_accuracy:-0.01")[0] == "failed"
        same = outcome(of(0.9)[:2], of(0.1)[:2], "test_accuracy:-0.01")
        assert same == ("passed", "both runs have the same measurement")

    def test_a_cell_that_is_done_no_more_fails_even_without_a_value(self):
        before = [cell("sgd", 0, metrics={"precision": 0.9}), cell("sgd", 1, metrics={"precision": None})]
        after = [cell("sgd", 0, metrics={"precision": 0.9}), failed("sgd", "oom", "too much", seed=1)]
        found, why = outcome(before, after, "precision:-0.01")
        assert (found, "seed 1: done in A, oom in B" in why) == ("failed", True)

    def test_a_failed_cell_fails(self):
        after = [*column_of()[:3], failed("sgd", "oom", "killed", seed=3)]
        decided, why = outcome(column_of(), after, "peak_memory:5%")
        assert (decided, why) == ("failed", "seed 3: done in A, oom in B")

    def test_a_cell_that_is_not_there_fails(self):
        decided, why = outcome(column_of(), column_of()[1:], "test_accuracy:-0.01")
        assert (decided, why) == ("failed", "seed 0: done in A, not declared in B")

    def test_a_column_that_is_not_there_fails(self):
        other = [cell("adam", 0, 0.5)]
        found = {check.column: check for check in check([*column_of(), *other], other, "test_accuracy:-1")}
        assert {name: check.outcome for name, check in found.items()} == {"sgd": "failed", "adam": "passed"}

    def test_a_value_that_is_not_there_fails(self):
        after = [record.model_copy(update={"memory_pass": None}) for record in column_of()]
        assert outcome(column_of(), after, "peak_memory:5%") == (
            "failed",
            "seeds 0 to 3: done in A, no value in B",
        )

    def test_a_new_column_is_not_checked(self):
        found = check(column_of(), [*column_of(), cell("adam", 0, 0.5)], "test_accuracy:-0.01")
        assert {check.column: check.outcome for check in found} == {"sgd": "passed", "adam": "unchecked"}
        assert describe_failures(found) == ()

    def test_a_rule_that_nothing_was_checked_by_fails(self):
        found = check([cell("sgd", 0, 0.5)], [cell("sgd", 0, 0.5)], "peak_memory:5%")
        assert [(check.outcome, "nothing was checked" in check.why) for check in found] == [("failed", True)]


def test_a_time_that_is_not_ranked_fails_with_its_reason():
    after = [timed("sgd", 0, 0.5, device={"name": "some processor", "threads": 8})]
    decided, why = outcome(column_of()[:1], after, "training_time:50%")
    assert decided == "failed"
    assert why == "the times are not ranked (threads in A: 2, in B: 8)"


def test_rows_without_a_finding_can_be_gated():
    before, after = ([cell("sgd", 0, time=Times(step_ms_median=ms))] for ms in (10.0, 20.0))
    assert outcome(before, after, "step_ms_median:50%")[0] == "failed"


def test_every_later_run_is_checked_against_the_first():
    rules = parse_rules(["test_accuracy:-0.01"], FIGURES)
    first = named("A", column_of())
    others = [named("B", column_of()), named("C", column_of(-0.1))]
    found = check_gate(rules, [compare_runs(first, other) for other in others])
    assert [(check.run, check.outcome) for check in found] == [("B", "passed"), ("C", "failed")]
