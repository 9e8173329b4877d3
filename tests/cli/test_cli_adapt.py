"""Cells that do not fit their memory limit: adapted, failed, meant to fail, or passed over."""

from __future__ import annotations

import pytest

from tests.cli.cli_process import one_line

pytestmark = pytest.mark.slow

HEAD = """
[suite]
name = "adapt"
seeds = {seeds}
"""
# The whole batch of 90 examples has 138 MB of activations.
EXPERIMENT = """
[[experiment]]
name = "{name}"
model = {{ name = "sized_parts:build_wide", copies = 2000 }}
dataset = {{ name = "tiny_parts:build_dataset", train = 100, test = 10 }}
batch_size = "full"
memory_limit = "{limit}"
{more}
"""
LIMIT_MB = 90


@pytest.fixture(scope="module")
def suite(above_base):
    """`suite(name=more, ..., seeds=1)`: experiments with further keys each."""

    def text(seeds=1, **experiments):
        parts = [
            EXPERIMENT.format(name=name, limit=above_base(LIMIT_MB), more=more)
            for name, more in experiments.items()
        ]
        return HEAD.format(seeds=seeds) + "".join(parts)

    return text


@pytest.fixture(scope="module")
def adapted(run_suite, suite):
    more = 'epochs = 2\nadapt = ["micro_batch", "train_size"]\noptimizer = "sgd"'
    return run_suite(suite(seeds=2, adapted=more))


class TestAdapted:
    def test_it_is_done(self, adapted):
        assert adapted.done.returncode == 0, adapted.done.stderr
        assert [cell["status"] for cell in adapted.cells("adapted")] == ["done", "done"]
        assert [line["attempt"] for line in adapted.lines] == [1, 1]

    def test_only_what_comes_first_gave_way(self, adapted):
        for cell in adapted.cells("adapted"):
            assert cell["requested"]["micro_batch"] == cell["requested"]["batch_size"] == "full"
            assert cell["ran"]["train_size"] == cell["ran"]["batch_size"] == 90
            assert cell["ran"]["micro_batch"] == 32  # the largest power of two whose activations fit 90 MB
            assert list(cell["fitted"]) == ["micro_batch"]
            assert cell["settings"]["micro_batch"] == 32
            assert cell["settings"]["batch_size"] == "full"

    def test_the_limit_was_kept(self, adapted):
        for cell in adapted.cells("adapted"):
            assert cell["memory"]["peak_host_bytes"] <= cell["memory"]["limit_bytes"]

    def test_the_reason_is_told_once_for_both_seeds(self, adapted):
        (why,) = {cell["fitted"]["micro_batch"] for cell in adapted.cells("adapted")}
        assert why.startswith("adapted to fit ")
        assert adapted.done.stdout.count(f"sgd: micro_batch full ran as 32: {why}") == 1

    def test_seeds_share_what_was_fitted(self, adapted):
        assert adapted.fitting == ["fitting micro_batch of adapted / sgd"]


def test_nothing_may_give_way(run_suite, suite):
    """An empty list of the optimizer's own replaces the experiment's."""
    more = 'adapt = ["micro_batch"]\noptimizer = { name = "sgd", adapt = [] }'
    ran = run_suite(suite(fixed=more))
    (cell,) = ran.cells("fixed")
    assert (ran.done.returncode, cell["status"], cell["fitted"]) == (1, "oom", {})
    assert cell["ran"]["micro_batch"] == 90
    assert "Traceback" not in ran.done.stderr


def test_what_a_model_does_not_allow_is_passed_over(run_suite, suite):
    """Batch normalisation takes no micro-batches; it is the next in the order that gives way."""
    more = 'adapt = ["micro_batch", "train_size"]\noptimizer = "sgd"'
    text = suite(normed=more).replace("sized_parts:build_wide", "sized_parts:build_normed")
    ran = run_suite(text)
    (cell,) = ran.cells("normed")
    assert (ran.done.returncode, cell["status"]) == (0, "done"), ran.done.stderr
    assert list(cell["fitted"]) == ["train_size"]
    assert cell["ran"]["train_size"] == cell["ran"]["micro_batch"] < 90


def test_not_even_the_least_fits(run_suite, suite):
    more = 'adapt = ["micro_batch"]\noptimizer = "sgd"'
    ran = run_suite(suite(hopeless=more), "--set", "hopeless.model.copies=200000")
    (cell,) = ran.cells("hopeless")
    assert (ran.done.returncode, cell["status"], cell["steps"]) == (1, "oom", 0)
    assert cell["reason"].startswith("does not fit ")
    assert cell["reason"].endswith(", even with the smallest micro_batch")
    assert cell["reason"] in one_line(ran.done.stdout)


def test_a_failure_in_a_trial_is_the_cells(run_suite, suite):
    failing = '{ name = "tiny_parts:Raising", at = 3 }'
    more = f'adapt = ["micro_batch", "train_size"]\noptimizer = {failing}'
    ran = run_suite(suite(failing=more))
    (cell,) = ran.cells("failing")
    assert (ran.done.returncode, cell["status"]) == (1, "error")
    assert "failed for a reason other than memory" in cell["reason"]


class TestMeantToFail:
    def test_and_not_even_one_example_fits(self, run_suite, suite):
        more = 'expect = "oom"\nmicro_batch = "auto"\noptimizer = "sgd"'
        ran = run_suite(suite(meant=more), "--set", "meant.model.copies=200000")
        (cell,) = ran.cells("meant")
        assert (ran.done.returncode, cell["status"]) == (0, "oom"), ran.done.stderr
        assert cell["reason"].startswith("not even a micro-batch of one example fits ")

    def test_and_it_does(self, run_suite, suite):
        """What may give way does not: to see it fail is what it is there for. Another experiment has the same
        cell without a limit, and it is another cell."""
        meant = 'expect = "oom"\nadapt = ["micro_batch"]\noptimizer = "sgd"'
        text = suite(seeds=2, meant=meant, roomy='optimizer = "sgd"')
        before, _, after = text.rpartition("memory_limit")
        ran = run_suite(before + after.partition("\n")[2])
        cells = ran.cells("meant")
        assert ran.done.returncode == 0, ran.done.stderr
        assert [(cell["status"], cell["expect"]) for cell in cells] == [("oom", "oom")] * 2
        assert [cell["status"] for cell in ran.cells("roomy")] == ["done", "done"]
        assert "sgd, seeds 0, 1: oom (as expected): " in ran.done.stdout
        assert ran.done.stderr.count("(as expected)") == 2

    def test_and_it_fits(self, run_suite, suite):
        more = 'expect = "oom"\noptimizer = "sgd"'
        ran = run_suite(suite(meant=more), "--set", "meant.model.copies=20")
        (cell,) = ran.cells("meant")
        assert (ran.done.returncode, cell["status"], cell["expect"]) == (1, "done", "oom")
        assert "sgd, seed 0: was expected to run out of memory but ended as done\n" in ran.done.stdout
        assert "(was expected to run out of memory)" in ran.done.stderr


@pytest.fixture(scope="module")
def passed_over(run_suite, suite):
    return run_suite(
        suite(
            seeds=2,
            sizes='train_size = [20, 70, 80]\noptimizer = "sgd"',
            adapted='train_size = 80\nadapt = ["micro_batch"]\noptimizer = "sgd"',
            other='train_size = 80\noptimizer = "adam"',
        )
    )


class TestPassedOver:
    def test_what_needs_at_least_as_much_is_not_tried(self, passed_over):
        assert [(cell["column"], cell["seed"], cell["status"]) for cell in passed_over.cells("sizes")] == [
            ("sgd train_size=20", 0, "done"),
            ("sgd train_size=70", 0, "oom"),
            ("sgd train_size=80", 0, "skipped"),
            ("sgd train_size=20", 1, "done"),
            ("sgd train_size=70", 1, "skipped"),
            ("sgd train_size=80", 1, "skipped"),
        ]
        reason = "needs at least as much memory as sizes / sgd train_size=70, seed 0, which ran out of memory"
        skipped = [cell for cell in passed_over.cells("sizes") if cell["status"] == "skipped"]
        assert {cell["reason"] for cell in skipped} == {reason}
        assert f"sgd train_size=80, seeds 0, 1: skipped: {reason}" in passed_over.done.stdout

    def test_what_can_give_way_is_tried(self, passed_over):
        assert [(cell["status"], cell["ran"]["micro_batch"]) for cell in passed_over.cells("adapted")] == [
            ("done", 32)
        ] * 2

    def test_another_optimizer_is_tried(self, passed_over):
        assert [cell["status"] for cell in passed_over.cells("other")] == ["oom", "skipped"]
        assert "other / adam, seed 0, which ran out of memory" in passed_over.cells("other")[1]["reason"]
