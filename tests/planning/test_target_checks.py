"""Targets that a suite cannot compare optimizers to, and evaluations that have nothing to measure."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from xbench.errors import Mistakes
from xbench.planning.target_checks import check_evaluations, check_targets, make_target_record
from xbench.suite.axes import Value
from xbench.suite.problems import Problems
from xbench.suite.schema import Experiment, Target

TEXT = """\
[suite]
name = "short"
[[experiment]]
name = "exp"
evaluate_every = 5
[experiment.target]
metric = "validation_accuracy"
value = 0.9
on_test = false
"""


@pytest.fixture
def complain(tiny_data):
    """`complain(target, **training)`: the mistake of a suite with that target, and its hint; None without
    one."""

    def check(target, adapt=(), equal=None, **training):
        sample = cell_of(tiny_data, **training)
        declared = replace(sample.declared, adapt=adapt)
        experiment = Experiment(
            name="exp", model="net", dataset="data", optimizer="sgd", target=target, equal=equal
        )
        problems = Problems("my.toml", TEXT, tomllib.loads(TEXT))
        resolved = {repr(declared.dataset): sample.resolved}
        check_targets({0: experiment}, [declared], resolved, problems)
        try:
            problems.raise_if_any()
        except Mistakes as error:
            (mistake,) = error.mistakes
            return mistake.message, mistake.hint
        return None

    return check


def test_metrics_of_validation_rows_are_targets(complain):
    assert complain(Target(metric="validation_accuracy", value=0.9)) is None
    assert complain(Target(metric="validation_loss", within=0.01)) is None
    assert complain(Target(metric="validation_loss", value=0.1)) is None


@pytest.mark.parametrize(
    ("metric", "message", "hint"),
    [
        (
            "validation_acuracy",
            "my.toml:7: no metric 'validation_acuracy' is measured after the epochs on bright-and-dark. "
            "Did you mean 'validation_accuracy'?",
            "its metrics are 'validation_loss', 'validation_accuracy'",
        ),
        (
            "train_loss",
            "my.toml:7: a target is not measured on training rows, as 'train_loss' is",
            "name one of 'validation_loss', 'validation_accuracy'",
        ),
        (
            "test_accuracy",
            "my.toml:7: 'test_accuracy' is measured once, on the test rows with the selected weights, so it "
            "does not say at which step a run reaches it",
            "name one of 'validation_loss', 'validation_accuracy'",
        ),
        (
            "test_loss",
            "my.toml:7: 'test_loss' is measured on the test rows, which would decide when a run has reached "
            "the target",
            "if this is wanted, set on_test = true in the target, and the table says so; otherwise name one "
            "of 'validation_loss', 'validation_accuracy'",
        ),
    ],
)
def test_other_metrics_are_refused(complain, metric, message, hint):
    assert complain(Target(metric=metric, value=0.9)) == (message, hint)


def test_the_test_loss_is_a_target_if_the_suite_says_so_and_measures_it(complain):
    target = Target(metric="test_loss", value=0.9, on_test=True)
    assert complain(target, selection="test_loss") is None
    message, hint = complain(target)
    assert message.startswith("my.toml:7: 'test_loss' is measured once, with the selected weights")
    assert hint == "set selection = 'test_loss' to measure it after each epoch"


def test_on_test_with_a_metric_of_validation_is_refused(complain):
    message, _ = complain(Target(metric="validation_loss", value=0.9, on_test=True))
    assert message.startswith("my.toml:9: on_test = true has no effect on 'validation_loss'")


def test_a_target_needs_validation_rows(complain):
    message, hint = complain(Target(metric="validation_loss", value=0.9), validation=0.0, selection="last")
    assert message == (
        "my.toml:7: 'validation_loss' is not measured, because no validation rows are held out of "
        "bright-and-dark"
    )
    assert hint == "set validation > 0"


@pytest.mark.parametrize(
    ("metric", "value", "message", "hint"),
    [
        ("validation_accuracy", 90, "value = 90: 'validation_accuracy' is at most 1", "for 90 %, write 0.9"),
        ("validation_accuracy", 101, "value = 101: 'validation_accuracy' is at most 1", None),
        ("validation_loss", 0, "value = 0: 'validation_loss' is a cross entropy, above 0", None),
        ("validation_loss", -0.5, "value = -0.5: 'validation_loss' is a cross entropy, above 0", None),
    ],
)
def test_values_that_no_run_can_reach_are_refused(complain, metric, value, message, hint):
    assert complain(Target(metric=metric, value=value)) == (f"my.toml:8: no run can reach {message}", hint)


def test_a_value_that_every_run_reaches_is_refused(complain):
    message = "my.toml:8: every run reaches value = -1: 'validation_accuracy' is at least 0"
    assert complain(Target(metric="validation_accuracy", value=-1)) == (message, None)


def test_bytes_need_sizes_that_may_be_reduced(complain):
    target = Target(metric="validation_loss", value=0.1, bytes=True)
    message, hint = complain(target)
    assert message.startswith("my.toml:6: bytes = true needs 'adapt' for 'opt'")
    assert hint == 'name the sizes that may be reduced: adapt = ["micro_batch"], for example'
    assert complain(target, adapt=("micro_batch",)) is None


def test_bytes_beside_equal_memory_are_told_by_the_suite_alone(complain):
    """See tests/suite/test_suite_equal_memory.py; a second sentence about it would be one too many."""
    target = Target(metric="validation_loss", value=0.1, bytes=True)
    assert complain(target, equal="memory") is None


def test_the_record_has_the_direction_of_the_metric(tiny_data):
    metrics = cell_of(tiny_data).resolved.facts.task.epoch_metrics
    record = make_target_record(Target(metric="validation_accuracy", within=0.01), metrics)
    assert (record.direction, record.value, record.within) == ("max", None, 0.01)
    assert make_target_record(Target(metric="validation_loss", value=1.0), metrics).direction == "min"


@pytest.mark.parametrize(
    ("training", "is_wrong"),
    [
        ({"validation": 0.0, "selection": "last"}, True),
        ({"validation": 0.0, "selection": "test_loss"}, False),
        ({"validation": 0.1}, False),
    ],
)
def test_evaluating_more_often_needs_rows(tiny_data, training, is_wrong):
    sample = cell_of(tiny_data, evaluate_every=5, **training)
    values = (Value("training", "evaluate_every", 5, ("experiment", 0, "evaluate_every"), False),)
    problems = Problems("my.toml", TEXT, tomllib.loads(TEXT))
    declared = replace(sample.declared, values=values)
    check_evaluations([declared], {repr(declared.dataset): sample.resolved}, problems)
    if not is_wrong:
        assert not problems
        return
    with pytest.raises(
        Mistakes, match=r"my\.toml:5: evaluate_every = 5 has no effect, because nothing is held out"
    ):
        problems.raise_if_any()
